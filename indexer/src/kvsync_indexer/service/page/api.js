// Requests to the index, relative to the page, so that a path prefix in front of the index is kept.

import { byId, setText } from "./dom.js";

const BASE = new URL(".", document.baseURI);
const AUDIT = "v1/audit";  // an index may want another token for it
const keyOf = (path) => `kvsync-token ${path === AUDIT ? "audit " : ""}${BASE.href}`;
const TIMEOUT_MS = 15000;

/** An answer that is no success. `status` is 0 if there was none. */
export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** The decoded answer. `accept` lists statuses besides 200 whose body counts as an answer. */
export async function ask(path, { body = null, accept = [], timeout = TIMEOUT_MS } = {}) {
  const headers = {};
  const token = sessionStorage.getItem(keyOf(path)) ?? sessionStorage.getItem(keyOf(""));
  if (token) headers.authorization = `Bearer ${token}`;
  if (body !== null) headers["content-type"] = "application/json";
  const how = { headers, method: body === null ? "GET" : "POST", cache: "no-store", credentials: "same-origin", signal: AbortSignal.timeout(timeout) };
  if (body !== null) how.body = JSON.stringify(body);
  let response;
  try {
    response = await fetch(new URL(path, BASE), how);
  } catch (error) {
    throw new ApiError(0, error.name === "TimeoutError" ? "no answer in time" : "the index cannot be reached");
  }
  if (response.status === 401) askForToken(path);
  const answer = await response.json().catch(() => null);
  if ((!response.ok && !accept.includes(response.status)) || answer === null) {
    throw new ApiError(response.status, answer?.error?.message ?? `status ${response.status}`);
  }
  return answer;
}

let asking = "";

function askForToken(path) {
  const dialog = byId("token-dialog");
  if (dialog.open) return;
  asking = path;
  setText(byId("token-title"), path === AUDIT ? "An audit needs a token" : "This index needs a token");
  dialog.showModal();
}

byId("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(keyOf(asking), byId("token").value);
  byId("token").value = "";
  byId("token-dialog").close();
  document.dispatchEvent(new Event("token"));
});
