/* Forms with a file (data-upload): sent by XHR, because only that tells how far the bytes are. The page after it
 * is the same as without a script: on success the server names it, a refusal comes as the whole page. */
import { announce } from "./announce.js";
import { duration, size } from "./upload-words.js";

function part(form, name) { return form.querySelector(`[data-upload-${name}]`); }

function show(form, loaded, total, began) {
  const bar = part(form, "progress").querySelector("progress");
  if (loaded >= total) {
    bar.removeAttribute("value");
    part(form, "words").textContent = "Received. Reading it in the sandbox.";
    part(form, "left").textContent = "";
    return;
  }
  bar.max = total;
  bar.value = loaded;
  part(form, "words").textContent = `Uploading: ${size(loaded)} of ${size(total)}`;
  const elapsed = (performance.now() - began) / 1000;
  part(form, "left").textContent = elapsed > 1 && loaded ? `about ${duration((elapsed * (total - loaded)) / loaded)} left` : "";
}

function again(form) {
  delete form.dataset.sent;
  part(form, "progress").hidden = true;
  for (const button of form.querySelectorAll("button[aria-busy]")) button.removeAttribute("aria-busy");
}

function say(form, text) {
  again(form);
  const input = form.querySelector("input[type='file']");
  input.setCustomValidity(text);
  input.reportValidity();
  announce(text);
}

function refused(html) {
  const answer = new DOMParser().parseFromString(html, "text/html");
  const page = answer.getElementById("page");
  if (!page) { location.reload(); return; }
  document.title = answer.title;
  document.getElementById("page").replaceWith(page);
  window.htmx?.process(page);
  document.dispatchEvent(new CustomEvent("htmx:after:settle"));
  page.querySelector("[data-error-summary]")?.focus();
}

/** A problem document's own words: the edge, or whoever stands in front of it, knows no page of ours. */
function reason(request) {
  try {
    const { title, detail } = JSON.parse(request.responseText);
    return `${title} ${detail ?? ""}`.trim();
  } catch {
    return `The server answered ${request.status}.`;
  }
}

function send(form) {
  const request = new XMLHttpRequest();
  const began = performance.now();
  part(form, "progress").hidden = false;
  request.upload.addEventListener("progress", (event) => { if (event.lengthComputable) show(form, event.loaded, event.total, began); });
  request.addEventListener("load", () => {
    const next = request.getResponseHeader("X-Location");
    if (request.status === 204 && next) location.assign(next);
    else if (request.getResponseHeader("Content-Type")?.startsWith("text/html")) refused(request.responseText);
    else say(form, `${reason(request)} Nothing was kept.`);
  });
  request.addEventListener("error", () => say(form, "The connection broke off. Nothing was kept; try again."));
  request.open("POST", form.getAttribute("action") || location.href);
  request.setRequestHeader("X-Upload", "1");
  request.send(new FormData(form));
}

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (event.defaultPrevented || form.dataset.upload === undefined) return;
  event.preventDefault();
  send(form);
});

document.addEventListener("change", (event) => {
  const input = event.target;
  if (input.type !== "file" || !input.dataset.limit) return;
  const file = input.files[0];
  const tooLarge = file && file.size > Number(input.dataset.limit);
  input.setCustomValidity(tooLarge ? `This file has ${size(file.size)}; at most ${size(Number(input.dataset.limit))} are accepted.` : "");
  if (tooLarge) input.reportValidity();
});
