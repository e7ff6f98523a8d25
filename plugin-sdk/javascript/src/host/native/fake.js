// What stands in for the host in native tests: everything is kept in memory, and a test may look at it.

/** The one host of the process. */
export const fake = {
  /** The time, in microseconds since the Unix epoch; a test sets it. */
  nowUs: 0,
  /** What `random` gives, one after the other and then again from the first. */
  randoms: [0.5],
  /** Lines of the log, as `[level, text]`. */
  lines: [],
  counters: new Map(),
  gauges: new Map(),
  histograms: new Map(),
  /** The values of the state, as `{ value, until }`. */
  state: new Map(),
  /** The requests that were sent. */
  requests: [],
  /** Answers a request with a response, or throws one of the contract's errors. */
  answer: (request) => {
    throw { tag: "denied", val: `the test grants nothing, and ${request.url} was asked for` };
  },

  /** Forgets everything. */
  reset() {
    Object.assign(this, pristine);
    for (const name of ["counters", "gauges", "histograms", "state"]) this[name] = new Map();
    for (const name of ["lines", "requests"]) this[name] = [];
  },
};
const pristine = { ...fake };
