// Lines in the host's log, under the target `guest`.

import host from "#host/log";
import { wellFormed } from "./utf8.js";

const writer = (level) => (text) => host.write(level, wellFormed(String(text)));

export const trace = writer("trace");
export const debug = writer("debug");
export const info = writer("info");
export const warn = writer("warn");
export const error = writer("error");
