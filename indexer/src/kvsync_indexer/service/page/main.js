// Puts the page together and keeps it up to date, also while the index restarts.

import { ask } from "./api.js";
import { updateDecisions } from "./decisions.js";
import { byId, setText } from "./dom.js";
import { seconds } from "./format.js";
import { addHistory, historyPath } from "./history.js";
import { every, now } from "./poll.js";
import { showPublishers, showSummary } from "./publishers.js";
import "./audit.js";
import "./prompt.js";

let answeredAt = null, lost = false;

async function updatePublishers() {
  try {
    showPublishers((await ask("v1/publishers")).publishers);
    showSummary(await ask("readyz", { accept: [503] }));
    answeredAt = Date.now();
    setText(byId("connection"), "Connected to the index.");
    setText(byId("staleness"), "");
    byId("connection").className = "notice";
    if (lost) {
      lost = false;
      now();
    }
  } catch (error) {
    lost = true;
    setText(byId("connection"), `No answer: ${error.message}. Trying again …`);
    setText(byId("staleness"), answeredAt === null ? "" : `What is shown is ${seconds((Date.now() - answeredAt) / 1000)} old.`);
    byId("connection").className = "notice bad";
  }
}

async function updateHistory() {
  try {
    if (!addHistory(await ask(historyPath()))) addHistory(await ask(historyPath()));
  } catch {
    // the publishers' poll says that the index does not answer
  }
}

every(2000, updatePublishers);
every(5000, updateHistory);
every(2000, updateDecisions);
