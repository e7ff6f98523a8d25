// What JavaScript has everywhere and a component does not: the build puts these in the place of the names, where a plugin
// or a package that it imports uses them. QuickJS would trap when asked for the time, and give each instance the same
// random numbers.

import * as clock from "../clock.js";
import * as log from "../log.js";
import * as random from "../random.js";

/** The host's time. */
class HostDate extends globalThis.Date {
  constructor(...given) {
    if (given.length === 0) super(HostDate.now());
    else super(...given);
  }

  static now() {
    return Math.floor(clock.nowUs() / 1000);
  }
}
export { HostDate as Date };

/** `Math.random` */
export const tidemillRandom = () => random.next();

const line = (write) => (...said) => write(said.map((one) => (typeof one === "string" ? one : shown(one))).join(" "));

function shown(value) {
  if (value instanceof Error || typeof value !== "object") return String(value);
  try {
    return JSON.stringify(value);
  } catch {
    return String(value);
  }
}

/** What is printed is in the host's log. */
export const console = {
  debug: line(log.debug),
  error: line(log.error),
  info: line(log.info),
  log: line(log.info),
  trace: line(log.trace),
  warn: line(log.warn),
};
