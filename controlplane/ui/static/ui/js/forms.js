/* Plain forms: the pressed button is busy until the answer comes and cannot be pressed twice; after a refused
 * post the focus goes to the summary of errors. A filter that sends itself makes one place in the history. */
const busy = new Set();

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (event.defaultPrevented || form.method === "dialog" || form.target) return;
  if (form.dataset.sent !== undefined) { event.preventDefault(); return; }
  if (form.method === "post") form.dataset.sent = "";
  if (!event.submitter) return;
  event.submitter.setAttribute("aria-busy", "true");
  busy.add(event.submitter);
});

/* Back from the cache of the browser: the form is new again. */
addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
  for (const button of busy) button.removeAttribute("aria-busy");
  busy.clear();
});

/* A filter that changes nothing is no place to come back to. */
document.addEventListener("htmx:before:history:update", (event) => {
  if (event.detail.history.path === location.pathname + location.search) event.preventDefault();
});

const summary = document.querySelector("[data-error-summary]");
summary?.focus({ preventScroll: false });
