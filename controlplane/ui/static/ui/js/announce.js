/* The one polite live region. It says endings and answers to the reader's own acts; ticks are never read out. */
const region = document.getElementById("announcer");
const said = new WeakMap();

export function announce(text) {
  if (!region) return;
  region.textContent = "";
  requestAnimationFrame(() => { region.textContent = text; });
}

/* An element says its ending in data-announce; it is spoken when a refresh changes it, not when the page loads. */
export function announceEndings() {
  for (const element of document.querySelectorAll("[data-announce]")) {
    const text = element.dataset.announce;
    if (said.has(element) && said.get(element) !== text && text) announce(text);
    said.set(element, text);
  }
}
announceEndings();
