// Line charts as SVG, each with its values in words and as a table.

import { el, setText, svg } from "./dom.js";
import { clock } from "./format.js";

const WIDTH = 400, HEIGHT = 130, LEFT = 52, BOTTOM = 18, TOP = 8;
const TABLE_ROWS = 12;

/** A chart in `parent`. `series` is a list of {name, value: point -> number or null}; `format` writes a value. */
export function lineChart(parent, title, series, format) {
  const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" });
  const values = series.map(() => document.createTextNode("–"));
  const legend = el("div", { class: "legend" }, ...series.map((each, at) => el("span", {},
    svg("svg", { viewBox: "0 0 14 8", "aria-hidden": "true" }, svg("polyline", { class: `s${at + 1}`, points: "0,4 14,4" })),
    `${each.name}: `, values[at])));
  const body = el("tbody");
  const table = el("table", {}, el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "time"), ...series.map((each) => el("th", { scope: "col", class: "number" }, each.name)))), body);
  const details = el("details", {}, el("summary", {}, "As a table"), table);
  parent.append(el("figure", {}, el("figcaption", {}, title), picture, legend, details));

  let points = [];
  const say = (point) => series.forEach((each, at) => {
    const value = point && each.value(point);
    values[at].data = value === null || value === undefined ? "–" : format(value);
  });
  picture.addEventListener("pointermove", (event) => {
    const box = picture.getBoundingClientRect();
    const share = ((event.clientX - box.left) / box.width * WIDTH - LEFT) / (WIDTH - LEFT - 4);
    say(points[Math.round(Math.max(0, Math.min(1, share)) * (points.length - 1))]);
  });
  picture.addEventListener("pointerleave", () => say(points.at(-1)));

  return (newest) => {
    points = newest;
    const most = Math.max(0, ...points.flatMap((point) => series.map((each) => each.value(point) ?? 0)));
    const top = most || 1;
    const first = points[0]?.at ?? 0, last = points.at(-1)?.at ?? 1;
    const x = (at) => LEFT + (WIDTH - LEFT - 4) * (last > first ? (at - first) / (last - first) : 1);
    const y = (value) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / top);
    const lines = series.flatMap((each, at) => runs(points, each.value).map((run) =>
      svg("polyline", { class: `s${at + 1}`, "data-series": each.name, points: run.map((point) => `${x(point.at).toFixed(1)},${y(each.value(point)).toFixed(1)}`).join(" ") })));
    picture.replaceChildren(
      svg("line", { class: "axis", x1: LEFT, x2: WIDTH - 4, y1: y(0), y2: y(0) }),
      svg("line", { class: "axis", x1: LEFT, x2: WIDTH - 4, y1: y(top), y2: y(top) }),
      svg("text", { x: LEFT - 4, y: y(top) + 4, "text-anchor": "end" }, most ? format(most) : ""),
      svg("text", { x: LEFT - 4, y: y(0) + 4, "text-anchor": "end" }, "0"),
      svg("text", { x: LEFT, y: HEIGHT - 4 }, points.length ? clock(first) : ""),
      svg("text", { x: WIDTH - 4, y: HEIGHT - 4, "text-anchor": "end" }, points.length ? clock(last) : "no data yet"),
      ...lines);
    say(points.at(-1));
    picture.setAttribute("aria-label", `${title}. ${series.map((each, at) => `${each.name}: ${values[at].data}`).join(", ")} at last, at most ${format(most)}.`);
    if (details.open) drawTable();
  };

  function drawTable() {
    const step = Math.max(1, Math.ceil(points.length / TABLE_ROWS));
    const shown = points.filter((_, at) => (points.length - 1 - at) % step === 0).reverse();
    body.replaceChildren(...shown.map((point) => el("tr", {}, el("td", {}, clock(point.at)), ...series.map((each) => {
      const cell = el("td", { class: "number" });
      const value = each.value(point);
      setText(cell, value === null ? "–" : format(value));
      return cell;
    }))));
  }
  details.addEventListener("toggle", () => details.open && drawTable());
}

/** The points with a value, split where it is missing. */
function runs(points, value) {
  const found = [[]];
  for (const point of points) {
    if (value(point) === null) found.push([]);
    else found.at(-1).push(point);
  }
  return found.filter((run) => run.length > 0).map((run) => (run.length === 1 ? [run[0], run[0]] : run));
}
