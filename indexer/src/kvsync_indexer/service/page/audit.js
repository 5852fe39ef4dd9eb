// The form that runs an audit and shows the difference.

import { ask } from "./api.js";
import { byId, el, prepareTable, row, setText } from "./dom.js";
import { integer, percent, plural, seconds } from "./format.js";

const MOST_ROWS = 200;
const KIND = { equal: "good", different: "bad", inconclusive: "warn", unreachable: "bad", no_ground_truth: "warn" };
const ORDER = ["different", "unreachable", "inconclusive", "no_ground_truth", "equal"];
const table = byId("audit-table");
const LABELS = prepareTable(table);
const button = byId("audit-form").querySelector("button");

function difference(audit) {
  const parts = [audit.detail];
  if (audit.prediction_error !== null) parts.push(`prediction error ${percent(audit.prediction_error)} of ${integer(audit.predicted_requests)} requests`);
  if (audit.engine_hit_ratio !== null) parts.push(`hit ratio of the engine ${percent(audit.engine_hit_ratio)}`);
  const text = parts.filter(Boolean).join("; ");
  const slots = audit.slots.filter((slot) => slot.missing || slot.extra);
  if (!slots.length) return el("td", {}, text);
  return el("td", {}, text, el("details", {}, el("summary", {}, "Blocks that differ"), ...slots.map((slot) => el("dl", { class: "facts" },
    fact(`${slot.medium}${slot.group_idx === null ? "" : ` group ${slot.group_idx}`}`, `engine ${integer(slot.engine_blocks)}, index ${integer(slot.index_blocks)}`),
    fact("missing in the index", [integer(slot.missing), ...slot.missing_examples].join(" ")),
    fact("extra in the index", [integer(slot.extra), ...slot.extra_examples].join(" "))))));
}

const fact = (term, value) => el("div", {}, el("dt", {}, term), el("dd", {}, value));

function show(report) {
  const audits = report.publishers.slice().sort((a, b) => ORDER.indexOf(a.verdict) - ORDER.indexOf(b.verdict) || (a.publisher < b.publisher ? -1 : 1));
  table.hidden = audits.length === 0;
  const more = audits.length > MOST_ROWS ? ` The table shows the first ${MOST_ROWS} of ${integer(audits.length)} publishers.` : "";
  setText(byId("audit-note"), `${integer(report.audited)} of ${plural(audits.length, "publisher")} could be compared, with ${plural(report.blocks, "block")}, in ${seconds(report.seconds)}: ${report.differences ? `the difference is ${plural(report.differences, "block")}` : "no difference"}.${more}`);
  byId("audit-note").className = report.differences ? "bad" : "";
  table.querySelector("tbody").replaceChildren(...audits.slice(0, MOST_ROWS).map((audit) => row([
    el("th", { scope: "row" }, audit.publisher), el("span", { class: KIND[audit.verdict] ?? "" }, audit.verdict.replaceAll("_", " ")),
    ...["engine_blocks", "index_blocks", "missing", "extra"].map((name) => el("td", { class: "number" }, integer(audit[name]))), difference(audit),
  ], LABELS)));
}

byId("audit-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const wait = Number(byId("audit-wait").value), name = byId("audit-publisher").value;
  button.disabled = true;
  setText(byId("audit-note"), "Comparing …");
  try {
    show(await ask("v1/audit", { body: { publishers: name ? [name] : null, wait_quiet_s: wait }, timeout: 1000 * (60 + wait) }));
  } catch (error) {
    setText(byId("audit-note"), error.message);
  }
  button.disabled = false;
});
