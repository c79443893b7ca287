/* The countdown of a held action. The server holds it and does it; this only shows how long cancelling helps, and says
 * it once: a region that read every second would drown out the rest. */
import { announce } from "./announce.js";

const said = new WeakSet();

function tick() {
  for (const toast of document.querySelectorAll("[data-toast]")) {
    const left = (Date.parse(toast.dataset.deadline) - Date.now()) / 1000;
    if (left <= 0) { toast.remove(); continue; }
    const words = toast.querySelector("[data-toast-left]");
    const text = `in ${Math.ceil(left)} s`;
    if (!said.has(toast)) {
      said.add(toast);
      announce(`${toast.querySelector("p").firstChild.data.trim()} ${text}.${toast.querySelector("form") ? " Cancel takes it back." : ""}`);
    }
    if (words && words.textContent !== text) words.textContent = text;
    const bar = toast.querySelector("progress");
    if (bar) bar.value = left;
  }
  if (document.querySelector("[data-toast]")) setTimeout(tick, 200);
}
tick();
document.addEventListener("htmx:after:settle", tick);
