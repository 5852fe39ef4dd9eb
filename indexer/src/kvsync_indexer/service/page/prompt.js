// The form that asks who holds how much of a prompt.

import { ask } from "./api.js";
import { byId, el, prepareTable, row, setText, svg } from "./dom.js";
import { integer, kindOf, plural, seconds } from "./format.js";

const MOST_ROWS = 50;
const HELP = {
  prompt: "The text is tokenized as the engines of the model do.",
  messages: 'Plain text is one message of the user. A JSON list such as [{"role": "user", "content": "…"}] is a whole chat.',
  token_ids: "Numbers, separated by commas or spaces.",
};
const table = byId("match-table");
const LABELS = prepareTable(table);

/** The body of the request. Throws an Error whose message is for the reader. */
function question() {
  const kind = byId("prompt-kind").value, text = byId("prompt-text").value;
  const body = { model: byId("prompt-model").value, limit: MOST_ROWS };
  if (kind === "prompt") body.prompt = text;
  else if (kind === "messages") body.messages = messages(text);
  else body.token_ids = tokens(text);
  if (byId("prompt-lora").value) body.lora = byId("prompt-lora").value;
  if (byId("prompt-salt").value) body.cache_salt = byId("prompt-salt").value;
  return body;
}

function messages(text) {
  if (!text.trim().startsWith("[")) return [{ role: "user", content: text }];
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Error(`The chat is no valid JSON: ${error.message}`);
  }
}

function tokens(text) {
  const parts = text.replace(/[[\]]/g, " ").split(/[\s,]+/).filter((part) => part !== "");
  const wrong = parts.find((part) => !/^\d{1,10}$/.test(part) || Number(part) >= 2 ** 32);
  if (wrong !== undefined) throw new Error(`“${wrong.slice(0, 40)}” is no token id.`);
  return parts.map(Number);
}

/** A bar of the matched share of the prompt, one part per tier. */
function bar(match, blocks) {
  const tiers = Object.entries(match.tiers);
  const text = tiers.map(([tier, count]) => `${tier} ${integer(count)}`).join(" · ") || "nothing";
  let from = 0;
  const parts = tiers.map(([, count], at) => {
    const width = blocks ? 100 * count / blocks : 0;
    const part = svg("rect", { class: `f${at % 4 + 1}`, x: from, width, height: 12 });
    from += width;
    return part;
  });
  return el("td", {}, svg("svg", { class: "bar", viewBox: "0 0 100 12", preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("rect", { class: "track", width: 100, height: 12 }), ...parts), `${text} of ${integer(blocks)} blocks`);
}

function show(answer) {
  table.hidden = answer.matches.length === 0;
  const holders = answer.matches.filter((match) => match.matched_blocks > 0).length;
  setText(byId("prompt-note"), answer.unknown ? `The tokens of this prompt cannot be known: ${answer.unknown}.`
    : answer.skips_cache ? "Engines do not look such a prompt up in their caches."
      : answer.block_size ? `${plural(answer.query_blocks, "full block")} of ${answer.block_size} tokens. Publishers that hold a beginning of it: ${holders ? integer(holders) : "none"}.`
        : "No publisher of this model has announced a block yet.");
  table.querySelector("tbody").replaceChildren(...answer.matches.map((match) => row([
    el("th", { scope: "row" }, match.publisher), el("td", { class: "number" }, integer(match.matched_tokens)), bar(match, answer.query_blocks),
    el("span", { class: `state ${kindOf(match.state)}` }, match.state), el("td", { class: "number" }, seconds(match.age_s)),
  ], LABELS)));
}

byId("prompt-kind").addEventListener("input", () => setText(byId("prompt-help"), HELP[byId("prompt-kind").value]));
byId("prompt-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    show(await ask("v1/match", { body: question() }));
  } catch (error) {
    table.hidden = true;
    setText(byId("prompt-note"), error.message);
  }
});
