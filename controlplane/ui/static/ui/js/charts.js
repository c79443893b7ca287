/* The charts of one page: one time axis, one cursor, one address. What is chosen (range, from, to, every, paused, table)
 * stands in the URL. Data comes as arrays; a null is a gap and is drawn as one. Plotly draws only the plot: legend,
 * values at the cursor and tables are HTML, so that keyboard and screen reader reach them. */
import { loadPlotly } from "../../vendor/plotly-strict.js";
import { readTheme } from "./chart-theme.js";
import { fillTable } from "./chart-table.js";
import { significant } from "./numbers.js";

const SERIES = {
  latency: ["p50", "p95", "p99"], throughput: ["throughput"], errors: ["errors"],
  queue: ["queue_depth", "in_flight"], replicas: ["replicas"],
};
const DEFAULT_RANGE = "15m";
const SECONDS = { "5m": 300, "15m": 900, "1h": 3600, "6h": 21_600, "24h": 86_400, "7d": 604_800, "30d": 2_592_000 };
/* The API's arrays say their unit in their name; a line here is named for what it shows. */
const ARRAYS = { p50: "p50_ms", p95: "p95_ms", p99: "p99_ms", errors: "error_rate" };
const EVERY = new Set(["10", "30", "60"]);
const pad = (number) => String(number).padStart(2, "0");

/* Plotly knows no zones: it is given the reader's wall clock as text and gives it back. */
const wall = (seconds) => {
  const at = new Date(seconds * 1000);
  return `${at.getFullYear()}-${pad(at.getMonth() + 1)}-${pad(at.getDate())} ${pad(at.getHours())}:${pad(at.getMinutes())}:${pad(at.getSeconds())}`;
};
const seconds = (text) => new Date(String(text).slice(0, 19).replace(" ", "T")).getTime() / 1000;

class Charts {
  constructor(root, plotly) {
    this.root = root;
    this.plotly = plotly;
    this.data = null;
    this.hidden = new Set();
    this.asked = 0;
    this.abort = null;
    this.timer = 0;
    this.figures = [...root.querySelectorAll("[data-chart]")].map((figure) => ({
      figure, key: figure.dataset.chart, plot: figure.querySelector(".chart-plot"), drawn: false,
      cursor: Object.assign(document.createElement("div"), { className: "chart-cursor", hidden: true }),
    }));
    for (const chart of this.figures) chart.plot.append(chart.cursor);
    this.readAddress();
    this.wire();
    this.fetch();
  }

  /* the address */
  readAddress() {
    const query = new URLSearchParams(location.search);
    this.from = Number(query.get("from")) || null;
    this.to = Number(query.get("to")) || null;
    this.range = query.get("range") ?? DEFAULT_RANGE;
    this.paused = query.has("paused");
    this.every = EVERY.has(query.get("every")) ? query.get("every") : "";
    this.root.toggleAttribute("data-table", query.has("table"));
    this.showChoice();
  }

  writeAddress(push) {
    const url = new URL(location.href);
    for (const name of ["range", "from", "to", "every", "paused", "table"]) url.searchParams.delete(name);
    if (this.between()) { url.searchParams.set("from", this.from); url.searchParams.set("to", this.to); }
    else if (this.range !== DEFAULT_RANGE) url.searchParams.set("range", this.range);
    if (this.every) url.searchParams.set("every", this.every);
    if (this.paused) url.searchParams.set("paused", "");
    if (this.root.hasAttribute("data-table")) url.searchParams.set("table", "");
    history[push ? "pushState" : "replaceState"](history.state, "", url);
    this.showChoice();
  }

  between() { return this.from !== null && this.to !== null && this.to > this.from; }

  query() {
    return this.between() ? { from: this.from, to: this.to } : { range: this.range };
  }

  address(base) {
    const url = new URL(base, location.href);
    for (const [name, value] of Object.entries(this.query())) url.searchParams.set(name, value);
    return url;
  }

  showChoice() {
    for (const link of this.root.querySelectorAll("[data-range]")) {
      const chosen = !this.between() && link.dataset.range === this.range;
      chosen ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current");
    }
    const between = this.root.querySelector("[data-charts-between]");
    if (between) between.textContent = this.between() ? `${wall(this.from).slice(5, 16)} – ${wall(this.to).slice(5, 16)}` : "Between…";
    const every = this.root.querySelector("[data-charts-every]");
    if (every) every.value = this.every;
    this.root.querySelector("[data-charts-pause]")?.setAttribute("aria-pressed", String(this.paused));
    this.root.querySelector("[data-charts-table]")?.setAttribute("aria-pressed", String(this.root.hasAttribute("data-table")));
    const csv = this.root.querySelector("[data-charts-csv]");
    if (csv) csv.href = this.address(csv.dataset.base ??= csv.getAttribute("href"));
  }

  /* what the reader does */
  wire() {
    const topic = this.root.dataset.liveTopic;
    if (topic) document.addEventListener(`live:${topic}`, () => this.soon());
    document.addEventListener("live:resync", () => this.soon());
    document.addEventListener("visibilitychange", () => this.soon());
    document.addEventListener("slipway:theme", () => this.draw());
    addEventListener("popstate", () => { this.readAddress(); this.fetch(); });
    /* Places of this document's history are the charts' own; htmx would load the page anew. */
    document.addEventListener("htmx:before:history:restore", (event) => event.preventDefault());
    new ResizeObserver(() => this.figures.forEach((chart) => chart.drawn && chart.plot.offsetWidth && this.plotly.Plots.resize(chart.plot))).observe(this.root);
    this.root.addEventListener("click", (event) => this.click(event));
    this.root.querySelector("[data-charts-every]")?.addEventListener("change", (event) => {
      this.every = event.target.value;
      clearTimeout(this.timer);
      this.timer = 0;
      this.writeAddress(false);
      this.soon();
    });
    this.root.querySelector("[data-charts-range]")?.addEventListener("submit", (event) => {
      event.preventDefault();
      const form = new FormData(event.target);
      event.target.closest("dialog").close();
      event.submitter?.removeAttribute("aria-busy");
      this.show(seconds(form.get("from")), seconds(form.get("to")));
    });
  }

  click(event) {
    const target = event.target.closest("a, button");
    if (!target) return;
    if (target.dataset.range && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      this.range = target.dataset.range;
      this.from = this.to = null;
      this.writeAddress(true);
      this.fetch();
    } else if (target.matches("[data-charts-pause]")) {
      this.paused = !this.paused;
      this.writeAddress(false);
      this.soon();
      this.say();
    } else if (target.matches("[data-charts-table]")) {
      this.root.toggleAttribute("data-table");
      this.writeAddress(false);
      this.draw();
    } else if (target.dataset.dialog === "charts-between") {
      const [from, to] = this.span();
      const form = this.root.querySelector("[data-charts-range]");
      form.elements.from.value = wall(from).replace(" ", "T");
      form.elements.to.value = wall(to).replace(" ", "T");
    } else if (target.dataset.series) {
      const name = target.dataset.series;
      this.hidden.has(name) ? this.hidden.delete(name) : this.hidden.add(name);
      target.setAttribute("aria-pressed", String(!this.hidden.has(name)));
      this.draw();
    }
  }

  show(from, to) {
    if (!(to > from)) return;
    this.from = Math.floor(from);
    this.to = Math.ceil(to);
    this.writeAddress(true);
    this.fetch();
  }

  /* the data */
  soon() {
    if (this.paused || this.between() || document.hidden || this.timer) return;
    const every = Number(this.every) * 1000 || ((SECONDS[this.range] ?? Infinity) > 3600 ? 15_000 : 2000);
    this.timer = setTimeout(() => { this.timer = 0; this.fetch(); }, Math.max(0, this.asked + every - Date.now()));
  }

  async fetch() {
    this.abort?.abort();
    const abort = this.abort = new AbortController();
    this.asked = Date.now();
    try {
      const answer = await fetch(this.address(this.root.dataset.seriesUrl), { headers: { Accept: "application/json" }, signal: abort.signal });
      if (!answer.ok) throw new Error(answer.status === 503 ? "The numbers cannot be read right now." : `The numbers cannot be read (${answer.status}).`);
      this.data = await answer.json();
      for (const [line, array] of Object.entries(ARRAYS)) this.data[line] ??= this.data[array];
      this.error = "";
    } catch (error) {
      if (error.name === "AbortError") return;
      this.error = error instanceof TypeError ? "No connection; these numbers may be old." : error.message;
    }
    this.draw();
  }

  span() {
    if (this.between()) return [this.from, this.to];
    const times = this.data?.t ?? [];
    const now = Math.max(Date.now() / 1000 - 1, times.at(-1) ?? 0);
    if (SECONDS[this.range]) return [now - SECONDS[this.range], now];
    return [times[0] ?? now - 900, times.at(-1) ?? now];
  }

  say() {
    const words = this.root.querySelector("[data-charts-state]");
    if (!words) return;
    const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
    const step = this.data?.step_s;
    const point = step ? `a point is ${step < 60 ? `${step} s` : `${Math.round(step / 60)} min`}` : "";
    words.textContent = this.error || [this.paused ? "paused" : this.between() ? "fixed time" : "", point, zone].filter(Boolean).join(" · ");
  }

  /* drawing */
  draw() {
    this.say();
    const theme = readTheme(this.root);
    const x = (this.data?.t ?? []).map(wall);
    const range = this.span().map(wall);
    for (const chart of this.figures) {
      const names = SERIES[chart.key];
      const empty = !this.data || names.every((name) => !(this.data[name] ?? []).some((value) => value !== null));
      const note = chart.figure.querySelector("[data-chart-note]");
      note.textContent = this.error && !this.data ? this.error : "Nothing was measured in this time.";
      note.hidden = !empty;
      this.values(chart);
      if (this.root.hasAttribute("data-table")) { if (this.data) fillTable(chart, names, this.data, wall, (name, value) => this.value(chart.key, name, value)); continue; }
      const [figure, layout] = this.layout(chart, names, x, range, theme, empty);
      const first = !chart.drawn;
      chart.drawn = true;
      this.plotly.react(chart.plot, figure, layout, { displayModeBar: false, doubleClick: false, showTips: false });
      if (first) this.listen(chart);
    }
  }

  value(key, name, value) {
    if (value === null || value === undefined) return null;
    if (key === "errors") return value * 100;
    return value;
  }

  layout(chart, names, x, range, theme, empty) {
    const lines = names.map((name) => ({
      type: "scatter", mode: "lines", x, y: (this.data?.[name] ?? []).map((value) => this.value(chart.key, name, value)),
      connectgaps: false, hoverinfo: "none", visible: !this.hidden.has(name),
      line: { color: theme.series[name], width: name === "p99" ? 2 : 1.6, shape: name === "replicas" ? "hv" : "linear", dash: name === "in_flight" ? "4px,3px" : "solid" },
    }));
    const target = chart.key === "latency" ? Number(this.root.dataset.target) || null : null;
    let top = 0;
    for (const line of lines) if (line.visible) for (const value of line.y) if (value > top) top = value;
    top = Math.max(top * 1.12, target ? target * 1.15 : 0, chart.key === "replicas" ? 2 : 0) || 1;
    const marks = this.data?.marks ?? [];
    const axis = { gridcolor: theme.grid, zeroline: false, linecolor: theme.grid, tickfont: { color: theme.axis, size: 11 }, automargin: false };
    return [lines, {
      margin: { l: 44, r: 14, t: 14, b: 26 }, showlegend: false, hovermode: empty ? false : "x", hoverdistance: -1, dragmode: "zoom",
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { family: theme.font, color: theme.axis, size: 11 },
      hoverlabel: { bgcolor: theme.label, bordercolor: theme.line, font: { family: theme.font, color: theme.text, size: 12 } },
      xaxis: { ...axis, type: "date", range, showgrid: false, ticks: "outside", ticklen: 4, tickcolor: theme.grid, nticks: Math.max(3, Math.floor(chart.plot.clientWidth / 110)), tickformatstops: [
        { dtickrange: [null, 60_000], value: "%H:%M:%S" }, { dtickrange: [60_000, 86_400_000], value: "%H:%M" }, { dtickrange: [86_400_000, null], value: "%-d %b" }] },
      yaxis: { ...axis, range: [0, top], fixedrange: true, nticks: 5, tickformat: top < 1000 ? "~g" : "~s", dtick: chart.key === "replicas" ? Math.max(1, Math.ceil(top / 4)) : undefined },
      shapes: [...marks.map((mark) => this.line(mark, theme)), ...(target ? this.target(target, top, theme) : [])],
      annotations: [...marks.map((mark) => this.flag(mark, theme)), ...(target ? [{ xref: "paper", x: 1, xanchor: "right", y: target, yanchor: "bottom", showarrow: false, text: `target ${significant(target)} ms`, font: { size: 11, color: theme.axis } }] : [])],
    }];
  }

  line(mark, theme) {
    const x = wall(mark.t);
    return { type: "line", xref: "x", yref: "paper", x0: x, x1: x, y0: 0, y1: 1, layer: "below", line: { color: theme.marks[mark.kind] ?? theme.axis, width: 1, dash: mark.kind === "scaling" ? "1px,3px" : "solid" } };
  }

  flag(mark, theme) {
    return { xref: "x", x: wall(mark.t), yref: "paper", y: 1, yanchor: "bottom", yshift: -3, showarrow: false, text: mark.kind === "scaling" ? "▿" : "▼", font: { size: 9, color: theme.marks[mark.kind] ?? theme.axis }, hovertext: mark.text, captureevents: true };
  }

  target(value, top, theme) {
    const breached = this.data?.p99?.some((p99) => this.value("latency", "p99", p99) > value);
    const line = { type: "line", xref: "paper", x0: 0, x1: 1, y0: value, y1: value, line: { color: theme.axis, width: 1, dash: "5px,4px" } };
    const band = { type: "rect", xref: "paper", x0: 0, x1: 1, y0: value, y1: top, fillcolor: theme.breach, opacity: 0.07, line: { width: 0 }, layer: "below" };
    return breached ? [band, line] : [line];
  }

  listen(chart) {
    chart.plot.on("plotly_hover", (event) => this.point(event.points[0]?.pointIndex ?? null));
    chart.plot.on("plotly_unhover", () => this.point(null));
    chart.plot.on("plotly_relayout", (event) => {
      const [from, to] = [event["xaxis.range[0]"], event["xaxis.range[1]"]];
      if (from !== undefined && to !== undefined) this.show(seconds(from), seconds(to));
    });
    chart.plot.on("plotly_doubleclick", () => { if (this.between()) history.back(); });
  }

  /* one cursor for all */
  point(index) {
    this.index = index;
    for (const chart of this.figures) {
      if (!chart.drawn) continue;
      const { xaxis, yaxis } = chart.plot._fullLayout;
      chart.cursor.hidden = index === null;
      if (index !== null) {
        const left = xaxis._offset + xaxis.d2p(wall(this.data.t[index]));
        Object.assign(chart.cursor.style, { left: `${left}px`, top: `${yaxis._offset}px`, height: `${yaxis._length}px` });
      }
      this.values(chart);
    }
  }

  values(chart) {
    const index = this.index ?? null;
    for (const button of chart.figure.querySelectorAll("[data-series]")) {
      const all = this.data?.[button.dataset.series] ?? [];
      const value = index === null ? all.findLast((candidate) => candidate !== null) : all[index];
      button.querySelector("b").textContent = significant(this.value(chart.key, button.dataset.series, value));
    }
    const at = chart.figure.querySelector("[data-chart-at]");
    if (index === null) { at.textContent = ""; return; }
    const time = this.data.t[index];
    const [from, to] = this.span();
    const mark = (this.data.marks ?? []).find((candidate) => Math.abs(candidate.t - time) < (to - from) / 100);
    at.textContent = mark && chart.figure.hasAttribute("data-wide") ? `${wall(time).slice(11)} · ${mark.text}` : wall(time).slice(11);
  }
}

const known = new WeakSet();
async function start() {
  for (const root of document.querySelectorAll("[data-charts]")) {
    if (known.has(root)) continue;
    known.add(root);
    try {
      new Charts(root, await loadPlotly());
    } catch (error) {
      for (const note of root.querySelectorAll("[data-chart-note]")) note.textContent = `${error.message} The CSV file has the numbers.`;
    }
  }
}
start();
document.addEventListener("htmx:after:settle", start);
