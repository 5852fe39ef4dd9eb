// Asking again and again: not while the page is hidden, never twice at once, and rarely what takes long to answer.

const jobs = [];

/** Call `job` every `periodMs`, and less often if it takes long. It must not throw. */
export function every(periodMs, job) {
  const state = { due: 0, running: false, at_once: false };
  const run = async () => {
    if (state.running) {
      state.at_once = true;
      return;
    }
    state.running = true;
    const begun = performance.now();
    await job();
    const took = performance.now() - begun;
    state.running = false;
    state.due = state.at_once ? 0 : performance.now() + Math.max(periodMs, 8 * Math.min(took, 2000));
    state.at_once = false;
  };
  jobs.push({ state, run });
}

/** Run every job now. */
export function now() {
  for (const { run } of jobs) run();
}

setInterval(() => {
  if (document.hidden) return;
  for (const { state, run } of jobs) if (!state.running && performance.now() >= state.due) run();
}, 250);
document.addEventListener("visibilitychange", () => document.hidden || now());
document.addEventListener("token", now);
