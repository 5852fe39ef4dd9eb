// The table of publishers: filtered, ordered and in pages, because an index may follow thousands.

import { byId, card, el, prepareTable, row, setChildren, setText } from "./dom.js";
import { integer, kindOf, seconds } from "./format.js";

const PAGE = 50;
const table = byId("publisher-table");
const LABELS = prepareTable(table);
const body = table.querySelector("tbody");
const FACTS = [
  "model", "pod", "rank", "endpoint", "http_url", "engine_version", "block_size", "last_seq", "orphans", "gaps", "missed",
  "resyncs", "restarts", "epochs", "truncations", "quarantines", "stales", "disconnects", "decode_errors", "duplicates",
  "replays", "replay_failures", "buffered", "transitions", "batches", "events", "unknown_removed", "refused", "source",
];
const ORDERS = {
  trouble: (a, b) => (a.state === "live") - (b.state === "live") || byName(a, b),
  name: byName,
  blocks: (a, b) => b.blocks - a.blocks || byName(a, b),
  lag: (a, b) => b.lag - a.lag || byName(a, b),
  age: (a, b) => (b.age_s ?? Infinity) - (a.age_s ?? Infinity) || byName(a, b),
};
const rows = new Map();
let publishers = [], page = 0;

function byName(a, b) {
  return a.name < b.name ? -1 : a.name > b.name ? 1 : 0;
}

/** Show the rows of `GET /v1/publishers`. */
export function showPublishers(newest) {
  publishers = newest;
  const states = [...new Set(newest.map((each) => each.state))].sort();
  const select = byId("filter-state");
  const wanted = ["", ...new Set([...states, select.value].filter((state) => state !== ""))];
  if (wanted.join() !== [...select.options].map((option) => option.value).join()) {
    const kept = select.value;
    select.replaceChildren(...wanted.map((state) => el("option", { value: state }, state || "all")));
    select.value = kept;
  }
  suggest(byId("models"), newest.map((each) => each.model));
  suggest(byId("publisher-names"), newest.slice(0, 200).map((each) => each.name));
  if (!byId("prompt-model").value && newest.length) byId("prompt-model").value = newest[0].model;
  for (const name of rows.keys()) if (!newest.some((each) => each.name === name)) rows.delete(name);
  draw();
}

function suggest(list, texts) {
  const wanted = [...new Set(texts)].sort();
  if (wanted.join("\n") !== [...list.children].map((option) => option.value).join("\n")) {
    list.replaceChildren(...wanted.map((text) => el("option", { value: text })));
  }
}

function draw() {
  const text = byId("filter-text").value.toLowerCase(), state = byId("filter-state").value;
  const shown = publishers
    .filter((each) => (!state || each.state === state) && (!text || `${each.name}\n${each.model}\n${each.reason}`.toLowerCase().includes(text)))
    .sort(ORDERS[byId("filter-order").value]);
  const pages = Math.max(1, Math.ceil(shown.length / PAGE));
  page = Math.min(page, pages - 1);
  const children = shown.slice(page * PAGE, (page + 1) * PAGE).flatMap(rowsOf);
  setChildren(body, children);
  byId("page-back").disabled = page === 0;
  byId("page-on").disabled = page === pages - 1;
  const from = page * PAGE + 1, to = Math.min(shown.length, (page + 1) * PAGE);
  setText(byId("page-text"), shown.length ? `${from} to ${to} of ${shown.length}` : publishers.length ? "no publisher matches" : "no publishers");
}

/** The row of a publisher, and the row of its details if it is open. Rows are kept, so that focus survives a poll. */
function rowsOf(publisher) {
  let known = rows.get(publisher.name);
  if (known === undefined) {
    known = makeRow(publisher.name);
    rows.set(publisher.name, known);
  }
  const { cells, details, open } = known;
  setText(cells.state, publisher.ready ? publisher.state : `${publisher.state}, not ready`);
  cells.state.className = `state ${kindOf(publisher.state)}`;
  setText(cells.age, seconds(publisher.age_s));
  setText(cells.lag, integer(publisher.lag));
  setText(cells.blocks, integer(publisher.blocks) + (publisher.incomplete ? " +?" : ""));
  cells.blocks.title = publisher.incomplete ? "The engine may hold more than the index knows." : "";
  setText(cells.epoch, publisher.epoch ?? "–");
  setText(cells.reason, publisher.reason);
  if (!open()) return [known.main];
  const facts = FACTS.filter((name) => publisher[name] !== null && publisher[name] !== undefined && publisher[name] !== "");
  const list = details.firstChild.firstChild;
  if (list.children.length !== facts.length) {
    list.replaceChildren(...facts.map((name) => el("div", {}, el("dt", {}, name.replaceAll("_", " ")), el("dd"))));
  }
  facts.forEach((name, at) => setText(list.children[at].lastChild, String(publisher[name])));
  return [known.main, details];
}

function makeRow(name) {
  const details = el("tr", { role: "row" }, el("td", { colspan: 7, role: "cell" }, el("dl", { class: "facts" })));
  const button = el("button", { type: "button", class: "link", "aria-expanded": "false", on: { click: () => {
    button.setAttribute("aria-expanded", String(button.getAttribute("aria-expanded") !== "true"));
    draw();
  } } }, name);
  const cells = {
    state: el("span"), age: el("td", { class: "number" }), lag: el("td", { class: "number" }),
    blocks: el("td", { class: "number" }), epoch: el("td", { class: "epoch" }), reason: el("td", { class: "reason" }),
  };
  const main = row([el("th", { scope: "row" }, button), cells.state, cells.age, cells.lag, cells.blocks, cells.epoch, cells.reason], LABELS);
  return { main, details, cells, open: () => button.getAttribute("aria-expanded") === "true" };
}

/** The cards at the top. */
export function showSummary(readiness) {
  const blocks = publishers.reduce((sum, each) => sum + each.blocks, 0);
  const lag = publishers.reduce((sum, each) => sum + each.lag, 0);
  const all = readiness.live === readiness.publishers;
  byId("cards").replaceChildren(
    card("Ready", readiness.ready ? "yes" : "no", readiness.ready ? "good" : "bad"),
    card("Live publishers", `${integer(readiness.live)} of ${integer(readiness.publishers)}`, all ? "good" : "warn"),
    card("Resident blocks", integer(blocks)),
    card("Batches not applied yet", integer(lag), lag ? "warn" : "good"),
    card("Index core", readiness.core),
  );
  const problems = [readiness.problem, ...Object.entries(readiness.discovery).map(([where, why]) => `${where}: ${why}`)].filter(Boolean);
  byId("problem").hidden = problems.length === 0;
  setText(byId("problem"), problems.slice(0, 5).join(" · "));
}

const turn = (by) => () => {
  page += by;
  draw();
};
byId("page-back").addEventListener("click", turn(-1));
byId("page-on").addEventListener("click", turn(1));
byId("filter").addEventListener("submit", (event) => event.preventDefault());
for (const id of ["filter-text", "filter-state", "filter-order"]) byId(id).addEventListener("input", () => {
  page = 0;
  draw();
});
