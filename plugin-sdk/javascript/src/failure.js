// What is thrown becomes a text that names the plugin's own file and line.

import { placeOf } from "#host/places";
import { missing } from "./missing.js";
import { wellFormed } from "./utf8.js";

/** A frame of a stack: what was called, and where. */
const FRAME = /^\s*at (?:(.*?) \()?([^()\s]+?):(\d+)(?::(\d+))?\)?\s*$/;
/** What engines say of a name that is not there. */
const UNDEFINED = /^'?(\w+)'? is not defined$/;
/** More of a stack only repeats where the call came from. */
const MOST_FRAMES = 8;

/** Runs a callback; what it throws is thrown as the text of a fault, with where it was thrown. */
export function guarded(call) {
  try {
    return settled(call());
  } catch (error) {
    throw wellFormed(faultText(error));
  }
}

/** The same, where an `Error` is how the plugin refuses something: its text alone says why. */
export function refusing(call) {
  try {
    return settled(call());
  } catch (error) {
    throw wellFormed(isPlain(error) ? error.message : faultText(error));
  }
}

/** What a callback returned. A promise would never be waited for. */
export function settled(result) {
  if (result instanceof Promise) {
    throw new TypeError("the function is async, and nothing waits for it: requests and state are called without await");
  }
  return result;
}

/** The text of whatever was thrown. */
export function faultText(error) {
  if (!(error instanceof Error)) return typeof error === "string" ? error : describe(error);
  const frames = stack(error.stack ?? "");
  const instead = insteadOf(error);
  const said = instead === undefined ? `${error}` : `${error}: ${instead}`;
  return frames.length === 0 ? said : `${said} (${frames.join(", ")})`;
}

/** What to write in the place of what an engine has refused, if that is known. */
function insteadOf(error) {
  if (isOfBigInt(error)) return "a BigInt goes with no number and into no JSON, so write Number(x)";
  const [, name] = (error instanceof ReferenceError && UNDEFINED.exec(error.message)) || [];
  return missing(name);
}

/** Whether a BigInt was used where a number or JSON is wanted, in the words of the engines. */
function isOfBigInt(error) {
  return error instanceof TypeError && /big ?int/i.test(error.message);
}

/** Whether it was thrown to refuse something, and not by a mistake of the code. */
function isPlain(error) {
  return error instanceof Error && (error.constructor === Error || error.name === "ConfigError");
}

function describe(error) {
  try {
    return JSON.stringify(error) ?? String(error);
  } catch {
    return String(error);
  }
}

/** The frames in the plugin's own files. */
function stack(text) {
  const frames = [];
  for (const line of text.split("\n")) {
    const [, name, file, number] = FRAME.exec(line) ?? [];
    if (file === undefined) continue;
    const place = placeOf(file, number);
    if (place !== undefined) frames.push(`at ${name ? `${name} ` : ""}${place}`);
  }
  return frames.slice(0, MOST_FRAMES);
}
