/* Keys: "/" search, "?" the list, "t" times, "g" and a letter goes to a place of the rail (data-go). They rest
 * while the reader types, with a modifier held, and while a dialog is open. */
import { swapTimes } from "./times.js";

const typing = (target) => target.closest?.("input, textarea, select, [contenteditable]") !== null && target.closest !== undefined;
let going = 0;

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  if (typing(event.target)) {
    if (event.key === "Escape" && event.target.id === "search") event.target.blur();
    return;
  }
  if (document.querySelector("dialog[open]")) return;
  if (going && Date.now() - going < 1500) {
    going = 0;
    const place = document.querySelector(`[data-go="${CSS.escape(event.key)}"]`);
    if (place) { event.preventDefault(); place.click(); }
    return;
  }
  const act = { "/": () => document.getElementById("search"), g: () => { going = Date.now(); }, t: swapTimes, "?": () => document.getElementById("shortcuts") }[event.key];
  if (!act) return;
  const found = act();
  if (found instanceof HTMLDialogElement) found.showModal();
  else if (found instanceof HTMLElement) { found.focus(); found.select?.(); }
  if (event.key !== "g") event.preventDefault();
});
