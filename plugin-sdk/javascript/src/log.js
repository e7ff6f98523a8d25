// Lines in the host's log, under the target `guest`.

import host from "#host/log";

const writer = (level) => (text) => host.write(level, (typeof text === "string" ? text : String(text)).toWellFormed());

export const trace = writer("trace");
export const debug = writer("debug");
export const info = writer("info");
export const warn = writer("warn");
export const error = writer("error");
