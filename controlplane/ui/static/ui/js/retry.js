/* The page that says a part is down asks every few seconds and comes back once there is an answer. Not a timed
 * reload: nothing the reader looks at moves until there is something better to show. */
async function ask() {
  try {
    const answer = await fetch(location.href, { method: "HEAD", cache: "no-store" });
    if (answer.status < 500) { location.reload(); return; }
  } catch {
    /* still down */
  }
  setTimeout(ask, 3000 + Math.random() * 2000);
}
setTimeout(ask, 3000);
