/* Times in the reader's zone: relative in the page, absolute on hover and while the keys are on their row (data.css shows
 * the title); `t` swaps the two everywhere. The zone is named. */
const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
const absolute = new Intl.DateTimeFormat(undefined, {
  day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", timeZoneName: "short",
});
const steps = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
let allAbsolute = false;

export function relative(then, now = Date.now()) {
  const seconds = (now - then) / 1000;
  const length = Math.abs(seconds);
  if (length < 5) return "just now";
  const [step, unit] = steps.find(([step]) => length >= step);
  const text = `${Math.floor(length / step)} ${unit}`;
  return seconds > 0 ? `${text} ago` : `in ${text}`;
}

function show(element, now) {
  const then = Date.parse(element.getAttribute("datetime"));
  if (Number.isNaN(then)) return;
  const whole = absolute.format(then);
  const style = allAbsolute ? "absolute" : element.dataset.time;
  const text = style === "absolute" ? whole : style === "both" ? `${relative(then, now)} · ${whole}` : relative(then, now);
  if (element.textContent !== text) element.textContent = text;
  const title = `${whole} (${zone})`;
  if (element.title !== title) element.title = title;
}

export function showTimes() {
  const now = Date.now();
  for (const element of document.querySelectorAll("time[data-time]")) show(element, now);
}

export function swapTimes() {
  allAbsolute = !allAbsolute;
  showTimes();
}

showTimes();
setInterval(showTimes, 5000);
document.addEventListener("htmx:after:settle", showTimes);
