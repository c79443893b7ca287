/* A chart as a table: the newest rows first, marks in a column of their own. Nothing is said by colour alone. */
import { significant } from "./numbers.js";

const MOST = 500;
const cell = (tag, text, className = "") => Object.assign(document.createElement(tag), { textContent: text, className });

export function fillTable(chart, names, data, wall, value) {
  const table = document.createElement("table");
  table.className = "table table-compact";
  const head = document.createElement("tr");
  const labels = names.map((name) => chart.figure.querySelector(`[data-series="${name}"]`).firstChild.data.trim());
  head.append(cell("th", "Time"), ...labels.map((label) => cell("th", label, "num-cell")), cell("th", "Marks"));
  const body = document.createElement("tbody");
  const marks = data.marks ?? [];
  for (let index = data.t.length - 1; index >= Math.max(0, data.t.length - MOST); index -= 1) {
    const [from, to] = [data.t[index - 1] ?? -Infinity, data.t[index]];
    const row = document.createElement("tr");
    row.append(
      cell("td", wall(data.t[index]), "nowrap"),
      ...names.map((name) => cell("td", significant(value(name, data[name]?.[index])), "num-cell")),
      cell("td", marks.filter((mark) => mark.t > from && mark.t <= to).map((mark) => mark.text).join("; ")),
    );
    body.append(row);
  }
  table.append(document.createElement("thead"), body);
  table.tHead.append(head);
  chart.figure.querySelector(".chart-table").replaceChildren(table);
}
