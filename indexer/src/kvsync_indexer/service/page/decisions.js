// What a router in the process of the index decided lately, and what its choices cost.

import { ApiError, ask } from "./api.js";
import { byId, card, el, prepareTable, row, setText } from "./dom.js";
import { clock, integer, percent, plural } from "./format.js";

const LIMIT = 100, SHOWN = 15, PAUSE_POLLS = 15;
let pause = 0;

/** Ask for the newest decisions; an index without a router is asked rarely. */
export async function updateDecisions() {
  if (pause > 0) {
    pause -= 1;
    return;
  }
  try {
    show((await ask(`v1/decisions?limit=${LIMIT}`)).decisions);
  } catch (error) {
    if (!(error instanceof ApiError) || error.status !== 404) return;
    pause = PAUSE_POLLS;
    byId("regret").replaceChildren();
    byId("decision-list").replaceChildren();
    setText(byId("decision-note"), "There is no router in this process. A router that runs elsewhere serves its decisions itself.");
  }
}

function show(decisions) {
  const list = byId("decision-list");
  const reading = list.querySelector("details[open]") !== null;
  const hint = reading ? " The list stands still while one of them is open." : "";
  setText(byId("decision-note"), decisions.length ? `The last ${plural(decisions.length, "decision")}.${hint}` : "The router has not placed a request yet.");
  byId("regret").replaceChildren(...regret(decisions));
  if (!reading && !list.contains(document.activeElement)) list.replaceChildren(...decisions.slice(0, SHOWN).map(line));
}

/** Prompt tokens that the decisions lost, by cause, in relation to what was available. */
function regret(decisions) {
  const sum = (value) => decisions.reduce((total, each) => total + Math.max(0, value(each)), 0);
  const known = (each) => each.reported_tokens !== null && each.predicted_tokens !== null;
  const available = sum((each) => each.available_tokens ?? 0);
  if (!decisions.length) return [];
  const of = (tokens) => (available ? `${integer(tokens)} (${percent(tokens / available)})` : integer(tokens));
  return [
    card("Tokens available somewhere", integer(available)),
    card("Lost to load", of(sum((each) => (each.available_tokens ?? 0) - (each.predicted_tokens ?? 0)))),
    card("False hits", of(sum((each) => (known(each) ? each.predicted_tokens - each.reported_tokens : 0)))),
    card("Hits the index did not know", of(sum((each) => (known(each) ? each.reported_tokens - each.predicted_tokens : 0)))),
  ];
}

function line(decision) {
  return el("li", {}, el("details", {},
    el("summary", {}, el("time", { datetime: new Date(1000 * decision.at).toISOString() }, clock(decision.at)), " ",
      el("strong", {}, decision.chosen || "no endpoint"), `, ${decision.policy}, ${decision.model}: ${tokens(decision)}`),
    candidates(decision)));
}

function tokens(decision) {
  const text = (value) => (value === null ? "unknown" : integer(value));
  return `predicted ${text(decision.predicted_tokens)}, available ${text(decision.available_tokens)}, found ${text(decision.reported_tokens)} tokens`;
}

function candidates(decision) {
  const head = ["Candidate", "Score", "Matched tokens", "In flight", "Reason"];
  const table = el("table", {}, el("thead", {}, el("tr", {}, ...head.map((text) => el("th", { scope: "col" }, text)))), el("tbody"));
  const labels = prepareTable(table);
  table.querySelector("tbody").append(...decision.candidates.map((each) => row([
    el("th", { scope: "row" }, each.publisher), each.score === null ? "–" : String(Math.round(10 * each.score) / 10),
    integer(each.matched_tokens), integer(each.queued), each.reason,
  ], labels)));
  return table;
}
