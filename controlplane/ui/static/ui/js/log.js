/* The log viewer. It asks for what comes after the last id it has, so a reconnect leaves no gap and no duplicate;
 * at most MOST lines stay in the page, older ones are in the download. */
import { copyText } from "./copy.js";

const MOST = 5000;
const RANK = { debug: 0, info: 1, warning: 2, error: 3, critical: 4 };

function element(tag, className, text) {
  const made = document.createElement(tag);
  made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

class Log {
  constructor(root) {
    this.root = root;
    this.box = root.querySelector(".log-lines");
    this.list = this.box.querySelector("ol");
    this.after = Number(this.list.querySelector("[data-id]:last-of-type")?.dataset.id ?? this.lines().at(-1)?.dataset.id ?? 0);
    this.attempt = this.lines().at(-1)?.dataset.attempt ?? "";
    this.level = "";
    this.text = "";
    this.asking = false;
    this.again = false;
    this.ended = false;
    this.follow(!location.hash.startsWith(`#${root.id}-`));
    this.wire();
    this.find();
    for (const time of this.list.querySelectorAll("time")) this.clock(time);
    this.fetch();
  }

  /* A line that the address names and the page has not: older than the last ones, so the page is asked for about it. */
  find() {
    const line = location.hash.match(new RegExp(`^#${this.root.id}-(\\d+)$`))?.[1];
    const url = new URL(location.href);
    if (!line || document.getElementById(location.hash.slice(1)) || url.searchParams.get("line") === line) return;
    url.searchParams.set("line", line);
    location.replace(url);
  }

  lines() { return [...this.list.querySelectorAll(".log-line")]; }
  part(name) { return this.root.querySelector(`[data-log-${name}]`); }

  wire() {
    for (const topic of (this.root.dataset.liveTopic ?? "").split(",")) {
      if (topic) document.addEventListener(`live:${topic}`, () => this.fetch());
    }
    document.addEventListener("live:resync", () => this.fetch());
    addEventListener("hashchange", () => { if (location.hash.startsWith(`#${this.root.id}-`)) { this.follow(false); this.find(); } });
    this.box.addEventListener("scroll", () => {
      if (this.atEnd()) this.endTop = this.box.scrollTop;
      if (this.atEnd() !== this.following) this.follow(this.atEnd(), false);
    }, { passive: true });
    this.part("follow")?.addEventListener("click", () => this.follow(!this.following));
    this.part("text")?.addEventListener("input", (event) => { this.text = event.target.value.toLowerCase(); this.filter(); });
    this.part("level")?.addEventListener("change", (event) => { this.level = event.target.value; this.filter(); });
    this.part("wrap")?.addEventListener("click", (event) => this.toggle(event.currentTarget, "wrap"));
    this.part("times")?.addEventListener("click", (event) => this.toggle(event.currentTarget, "times"));
    this.part("error")?.addEventListener("click", () => this.firstError());
    this.part("copy")?.addEventListener("click", (event) => copyText(this.shown().map((line) => this.plain(line)).join("\n"), event.currentTarget));
  }

  toggle(button, name) {
    const on = this.root.toggleAttribute(`data-${name}`);
    button.setAttribute("aria-pressed", String(on));
    if (this.following) this.toEnd();
  }

  follow(on, scroll = true) {
    this.following = on;
    this.part("follow")?.setAttribute("aria-pressed", String(on));
    if (on && scroll) this.toEnd();
  }

  toEnd() { this.box.scrollTop = this.box.scrollHeight; this.endTop = this.box.scrollTop; }
  atEnd() { return this.box.scrollHeight - this.box.scrollTop - this.box.clientHeight < 24; }
  left() { return this.box.scrollTop < this.endTop && !this.atEnd(); } // scrolled up; its event may be still to come
  shown() { return this.lines().filter((line) => !line.hidden); }
  plain(line) {
    return [line.querySelector("time").getAttribute("datetime"), line.dataset.level.toUpperCase(), line.querySelector(".log-message").textContent].join(" ");
  }

  firstError() {
    const line = this.lines().find((candidate) => RANK[candidate.dataset.level] >= RANK.error);
    if (!line) return;
    if (line.hidden) { this.part("text").value = this.text = ""; this.filter(); }
    this.follow(false);
    line.scrollIntoView({ block: "center" });
    history.replaceState(history.state, "", `#${line.id}`);
    line.classList.add("changed");
  }

  matches(line) {
    return (!this.level || (RANK[line.dataset.level] ?? 1) >= RANK[this.level])
      && (!this.text || line.querySelector(".log-message").textContent.toLowerCase().includes(this.text));
  }

  filter() {
    for (const line of this.lines()) line.hidden = !this.matches(line);
    this.count();
    if (this.following) this.toEnd();
  }

  count() {
    const all = this.lines().length;
    const shown = this.shown().length;
    const words = this.root.querySelector("[data-log-count]");
    const number = shown === all ? `${all} line${all === 1 ? "" : "s"}` : `${shown} of ${all} lines`;
    words.textContent = this.ended ? `${number}; what wrote them is gone` : number;
  }

  clock(time) {
    const at = new Date(time.getAttribute("datetime"));
    if (!Number.isNaN(at.getTime())) {
      time.textContent = at.toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
      time.title = at.toISOString();
    }
  }

  add(event) {
    if (event.id <= this.after) return;
    this.after = event.id;
    const attempt = String(event.attempt ?? "");
    if (attempt && attempt !== this.attempt) {
      const head = element("li", "log-attempt", `Attempt ${attempt}`);
      head.id = `${this.root.id}-attempt-${attempt}`;
      head.dataset.attempt = attempt;
      this.list.append(head);
      this.attempt = attempt;
    }
    const line = element("li", "log-line");
    line.id = `${this.root.id}-${event.id}`;
    Object.assign(line.dataset, { id: event.id, level: event.level, attempt });
    const time = element("time", "");
    time.setAttribute("datetime", event.at);
    this.clock(time);
    const link = element(event.at ? "a" : "span", "log-at");
    if (event.at) Object.assign(link, { href: `#${line.id}`, tabIndex: -1 }); // else hundreds of stops before what follows
    link.append(time);
    line.append(link, element("span", "log-level", event.level), element("span", "log-message", event.message));
    line.hidden = !this.matches(line);
    this.list.append(line);
  }

  async fetch() {
    if (this.asking) { this.again = true; return; }
    this.asking = true;
    try {
      do {
        this.again = false;
        const url = new URL(this.root.dataset.logUrl, location.href);
        url.searchParams.set("after", this.after);
        const answer = await fetch(url, { headers: { Accept: "application/json" } });
        const ended = answer.status === 404;
        if (ended !== this.ended) { this.ended = ended; this.count(); }
        if (!answer.ok) break;
        const { events } = await answer.json();
        if (this.following && this.left()) this.follow(false);
        for (const event of events) this.add(event);
        if (events.length) {
          this.again ||= true; // there may be another page; an empty answer ends the loop
          for (const old of this.lines().slice(0, -MOST)) old.remove();
          this.count();
          if (this.following) this.toEnd();
        }
      } while (this.again);
    } catch {
      /* offline: the next tick or resync asks again, from the same id */
    } finally {
      this.asking = false;
    }
  }
}

const known = new WeakSet();
function start() {
  for (const root of document.querySelectorAll("[data-log]")) {
    if (!known.has(root)) { known.add(root); new Log(root); }
  }
}
start();
document.addEventListener("htmx:after:settle", start);
