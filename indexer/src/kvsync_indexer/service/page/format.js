// Numbers and times as people read them.

const count = new Intl.NumberFormat("en-US");
const short = new Intl.NumberFormat("en-US", { maximumSignificantDigits: 3, notation: "compact" });

export const integer = (value) => count.format(value);
/** A number with its noun: `plural(1, "block")` is "1 block". */
export const plural = (value, noun) => `${integer(value)} ${noun}${value === 1 ? "" : "s"}`;
export const compact = (value) => short.format(value);
export const percent = (value) => `${(100 * value).toFixed(value < 0.1 ? 1 : 0)} %`;

/** Seconds as the largest fitting unit; a dash for null. */
export function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0 s";
  if (value < 0.001) return `${(1e6 * value).toFixed(0)} µs`;
  if (value < 1) return `${(1e3 * value).toPrecision(3)} ms`;
  if (value < 120) return `${value.toFixed(value < 10 ? 1 : 0)} s`;
  if (value < 7200) return `${(value / 60).toFixed(0)} min`;
  return `${(value / 3600).toFixed(1)} h`;
}

/** The time of day of a Unix time. */
export const clock = (at) => new Date(1000 * at).toLocaleTimeString("en-GB");

const DOUBT = new Set(["gap", "resyncing", "replaying", "restart", "connecting"]);

/** The colour of a state: live, in doubt, or gone. */
export const kindOf = (state) => (state === "live" ? "good" : DOUBT.has(state) ? "warn" : "bad");
