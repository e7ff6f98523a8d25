// What browsers and Node.js have everywhere and a plugin has not, and what there is in its place. The build refuses it in
// the plugin's own files; what a package uses is told when it is reached.

const HTTP = "write http.get(url) or http.send(request) of tidemill-plugin, which wait for the answer";
const TIMER = "declare tickEvery, and the host calls tick";
const TEXT = "write utf8.encode(text) and utf8.decode(bytes) of tidemill-plugin";
const STATE = "write state.set(key, value) of tidemill-plugin, which the host keeps";
const SOCKETS = "the host has the connections, and sends what is emitted";
const NO_BROWSER = "there is no browser";
const PACKAGE = "a package in plain JavaScript may have one";

const INSTEAD = {
  fetch: HTTP,
  XMLHttpRequest: HTTP,
  WebSocket: SOCKETS,
  EventSource: SOCKETS,
  setTimeout: TIMER,
  setInterval: TIMER,
  setImmediate: TIMER,
  TextEncoder: TEXT,
  TextDecoder: TEXT,
  Buffer: "bytes are a Uint8Array, and utf8.encode(text) of tidemill-plugin makes one of a text",
  process: "declare a configuration with config of tidemill-plugin, and log with console.log",
  localStorage: STATE,
  sessionStorage: STATE,
  performance: "write clock.nowUs() of tidemill-plugin",
  require: "write import",
  window: NO_BROWSER,
  document: NO_BROWSER,
  URL: PACKAGE,
  URLSearchParams: PACKAGE,
  AbortController: PACKAGE,
  Intl: PACKAGE,
  crypto: PACKAGE,
  structuredClone: PACKAGE,
};

/** The names, all of which are refused but `require`, which a bundle has. */
export const MISSING = Object.keys(INSTEAD).filter((name) => name !== "require");

/** What is said of a name that is not there; undefined if nothing is known of it. */
export function missing(name) {
  return Object.hasOwn(INSTEAD, name) ? `a plugin has no ${name}: ${INSTEAD[name]}` : undefined;
}
