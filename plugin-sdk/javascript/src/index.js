// The JavaScript SDK: what a plugin imports. README.md shows a whole one.

export * as clock from "./clock.js";
export * as config from "./config.js";
export * as http from "./http.js";
export * as json from "./json.js";
export * as log from "./log.js";
export * as metrics from "./metrics.js";
export * as random from "./random.js";
export * as state from "./state.js";
export * as utf8 from "./utf8.js";
export { connector, Dial, Later } from "./connector.js";
export { Part, hash } from "./part.js";
export * as field from "./field.js";
export { plugin, transform } from "./transform.js";
export { sessions, sliding, tumbling } from "./windows.js";
