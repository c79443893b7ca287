/* Copy buttons: data-copy holds the text. The answer is a tick in the button and a word for screen readers. */
import { announce } from "./announce.js";

async function write(text) {
  if (navigator.clipboard?.writeText) {
    try { return await navigator.clipboard.writeText(text); } catch { /* refused (plain http, no permission): the old way */ }
  }
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "visually-hidden";
  area.readOnly = true;
  (document.querySelector("dialog[open]") ?? document.body).append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  if (!done) throw new Error("The browser did not allow copying.");
}

export async function copyText(text, button) {
  try {
    await write(text);
  } catch (error) {
    announce(error.message);
    return;
  }
  button?.focus?.();
  if (button) {
    button.dataset.copied = "";
    setTimeout(() => delete button.dataset.copied, 1600);
  }
  announce("Copied");
}

document.addEventListener("click", (event) => {
  const button = event.target.closest?.("[data-copy]");
  if (button) copyText(button.dataset.copy, button);
});
