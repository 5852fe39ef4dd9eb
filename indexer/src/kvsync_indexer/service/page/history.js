// The charts and the timeline, from the history that the index keeps.

import { lineChart } from "./charts.js";
import { byId, el, setText, svg } from "./dom.js";
import { clock, compact, integer, kindOf, percent, seconds } from "./format.js";

const MOST_POINTS = 360, MOST_TRANSITIONS = 500, MOST_SHOWN = 60, MOST_LANES = 12;
const FILL = { good: "f-live", warn: "f-doubt", bad: "f-gone" };

let started = null, points = [], transitions = [], dropped = 0;

const share = (part, whole) => (whole > 0 ? part / whole : null);
const grid = byId("chart-grid");
const charts = [
  lineChart(grid, "Events per second", [{ name: "events", value: (p) => p.events_per_s }], compact),
  lineChart(grid, "Delay of events", [
    { name: "arrival, median", value: (p) => p.arrival_p50_s }, { name: "visible, p99", value: (p) => p.visible_p99_s }], seconds),
  lineChart(grid, "Lag in batches", [{ name: "known, not applied", value: (p) => p.lag }], compact),
  lineChart(grid, "Resident blocks", [{ name: "blocks", value: (p) => p.blocks }], compact),
  lineChart(grid, "Publishers", [{ name: "live", value: (p) => p.live }, { name: "all", value: (p) => p.publishers }], compact),
  lineChart(grid, "Matches over HTTP per second", [{ name: "matches", value: (p) => p.matches_per_s }], compact),
  lineChart(grid, "Prediction error", [
    { name: "false hits", value: (p) => share(p.over_tokens, Math.max(p.predicted_tokens, p.cached_tokens)) },
    { name: "missed hits", value: (p) => share(p.under_tokens, Math.max(p.predicted_tokens, p.cached_tokens)) }], percent),
];

/** The path of the request for what is not known yet. */
export function historyPath() {
  const last = Math.max(points.at(-1)?.at ?? 0, transitions.at(-1)?.at ?? 0);
  return `v1/history?since=${last}`;
}

/** Add an answer. False if the index has restarted, so that everything must be asked for again. */
export function addHistory(answer) {
  if (started !== null && started !== answer.started_at) {
    started = null;
    points = [];
    transitions = [];
    return false;
  }
  started = answer.started_at;
  points = merge(points, answer.points).slice(-MOST_POINTS);
  transitions = merge(transitions, answer.transitions).slice(-MOST_TRANSITIONS);
  dropped = answer.transitions_dropped;
  for (const draw of charts) draw(points);
  drawTimeline();
  return true;
}

function merge(known, more) {
  const last = known.at(-1)?.at ?? 0;
  return known.concat(more.filter((each) => each.at > last));
}

function drawTimeline() {
  const newest = transitions.slice(-MOST_SHOWN).reverse();
  byId("transition-list").replaceChildren(...newest.map((each) => el("li", {},
    el("time", { datetime: new Date(1000 * each.at).toISOString() }, clock(each.at)), ` ${each.publisher}: ${each.before} → `,
    el("strong", { class: kindOf(each.after) }, each.after), `, ${each.reason}`)));
  const more = dropped + transitions.length - newest.length;
  setText(byId("transition-note"), transitions.length === 0 ? "No publisher has changed its state since the index started."
    : more > 0 ? `${integer(more)} earlier transitions are not shown.` : "");
  drawLanes();
}

/** One lane per publisher that changed its state, coloured by the state over time. */
function drawLanes() {
  const names = [...new Set(transitions.slice().reverse().map((each) => each.publisher))].slice(0, MOST_LANES);
  byId("lane-figure").hidden = names.length === 0;
  if (!names.length) return;
  const end = Math.max(points.at(-1)?.at ?? 0, transitions.at(-1).at);
  const begin = Math.min(points[0]?.at ?? end, transitions[0].at, end - 1);
  const x = (at) => 1000 * (Math.max(at, begin) - begin) / (end - begin);
  byId("lanes").replaceChildren(...names.map((name) => lane(name, x, begin, end)));
  setText(byId("lane-begin"), clock(begin));
  setText(byId("lane-end"), clock(end));
}

function lane(name, x, begin, end) {
  const own = transitions.filter((each) => each.publisher === name);
  const spans = [{ at: begin, state: own[0].before }, ...own.map((each) => ({ at: each.at, state: each.after }))];
  const parts = spans.map((span, at) => {
    const from = x(span.at), width = Math.max(3, x(spans[at + 1]?.at ?? end) - from);
    return svg("rect", { class: FILL[kindOf(span.state)], x: from, width, height: 10 }, svg("title", {}, `${span.state} from ${clock(span.at)}`));
  });
  return el("li", { class: "lane" }, el("span", {}, name), svg("svg", { viewBox: "0 0 1000 10", preserveAspectRatio: "none", role: "img",
    "aria-label": `${integer(own.length)} changes, now ${own.at(-1).after}` }, ...parts));
}
