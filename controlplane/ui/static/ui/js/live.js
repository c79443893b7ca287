/* The event stream. It carries only "this changed": each tick becomes a DOM event `live:<topic>` on the document,
 * and whatever listens (hx-trigger="live:job:12 from:document", log.js, charts.js) asks for its part anew.
 *
 * Topics are read from the page: data-live="a,b" (the {% live %} tag) and data-live-topic="a". A dropped stream is
 * taken up by the browser itself, which names the last id; the server sends what was missed or `resync`. A refused
 * one (logged out, restarting) is asked for again after a random, growing time, or a restarted server would meet
 * all browsers at once; then everything refreshes, because nobody knows what was missed. */
import { announce, announceEndings } from "./announce.js";
import { showTimes } from "./times.js";

const STALE_AFTER_MS = 30_000;
const light = document.getElementById("connection");
const root = document.documentElement;
let source = null;
let topics = "";
let failures = 0;
let lostAt = 0;
let refused = false;
let retry = 0;
let staleTimer = 0;
let made = document.body.dataset.made ?? "";

function wanted() {
  const found = new Set();
  for (const element of document.querySelectorAll("[data-live], [data-live-topic]")) {
    for (const topic of `${element.dataset.live ?? ""},${element.dataset.liveTopic ?? ""}`.split(",")) {
      if (topic.trim()) found.add(topic.trim());
    }
  }
  return [...found].sort();
}

function show(state, tone, words) {
  root.dataset.connection = state;
  if (!light) return;
  light.dataset.tone = tone;
  light.firstElementChild.textContent = words;
  light.title = { live: "Changes appear by themselves", reconnecting: "Asking again", stale: "What you see may be old" }[state] ?? words;
}

const tell = (name, detail) => document.dispatchEvent(new CustomEvent(`live:${name}`, { detail }));

function stale() {
  const since = new Date(lostAt).toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit" });
  show("stale", "warning", `Stale since ${since}`);
  announce(`No connection since ${since}. What you see may be old.`);
}

function lost() {
  lostAt ||= Date.now();
  if (root.dataset.connection !== "stale") {
    show("reconnecting", "progressing", "Reconnecting");
    clearTimeout(staleTimer);
    staleTimer = setTimeout(stale, Math.max(0, lostAt + STALE_AFTER_MS - Date.now()));
  }

  if (source?.readyState === EventSource.CONNECTING) return;
  source = null;
  refused = true;
  failures += 1;
  clearTimeout(retry);
  retry = setTimeout(connect, Math.random() * Math.min(10_000, 500 * 2 ** failures) + 250);
}

function connect() {
  clearTimeout(retry);
  source?.close();
  const names = wanted();
  topics = names.join(",");
  if (!names.length) { show("live", "unknown", "No live parts"); light?.setAttribute("hidden", ""); return; }
  light?.removeAttribute("hidden");
  /* What changed between the making of this page and this moment comes at once. Later streams name the last id. */
  const since = made ? `&since=${made}` : "";
  made = "";
  source = new EventSource(`/live/events?topics=${encodeURIComponent(topics)}${since}`);
  source.onopen = () => {
    const missed = refused;
    failures = lostAt = 0;
    refused = false;
    clearTimeout(staleTimer);
    show("live", "ok", "Live");
    if (missed) tell("resync");
  };
  source.onerror = lost;
  for (const topic of names) source.addEventListener(topic, (event) => tell(topic, event.data));
  source.addEventListener("resync", () => tell("resync"));
}

/* A filter has moved the page on: what was asked for its old address must not replace what stands there now. */
const askedAt = new WeakMap();
document.addEventListener("htmx:config:request", ({ detail: { ctx } }) => {
  if (ctx.sourceElement.dataset?.live !== undefined) askedAt.set(ctx, location.href);
});

/* A refresh brings text nodes before and after its element; morphing would add them again every time. */
document.addEventListener("htmx:before:swap", (event) => {
  if ((askedAt.get(event.detail.ctx) ?? location.href) !== location.href) {
    event.preventDefault();
    tell("resync");
    return;
  }
  for (const { fragment, swapSpec } of event.detail.tasks) {
    const style = typeof swapSpec === "string" ? swapSpec : swapSpec?.style;
    if (style !== "outerMorph" || !fragment) continue;
    for (const node of [fragment.firstChild, fragment.lastChild]) {
      if (node?.nodeType === Node.TEXT_NODE && !node.data.trim()) node.remove();
    }
  }
});
document.addEventListener("htmx:after:settle", () => {
  showTimes();
  announceEndings();
  if (wanted().join(",") !== topics) { refused = topics !== ""; connect(); }
});

/* What may not be asked for any more (logged out, removed) is said, not swallowed. */
document.addEventListener("htmx:response:error", (event) => {
  const status = event.detail.ctx.response.status;
  if (status === 401 || status === 403) announce("This part of the page may not be refreshed. Log in again.");
});

addEventListener("pagehide", () => { clearTimeout(retry); source?.close(); source = null; });
addEventListener("pageshow", (event) => { if (event.persisted) { connect(); tell("resync"); } });
addEventListener("online", () => { if (!source) connect(); });
connect();
