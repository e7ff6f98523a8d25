// What the text of a message says is to become of it.

import { state, utf8 } from "tidemill-plugin";

/** Splits at the first `parts - 1` colons; the last part keeps the rest. */
function split(command, parts) {
  const found = [];
  let start = 0;
  while (found.length < parts - 1) {
    const end = command.indexOf(":", start);
    found.push(command.slice(start, end));
    start = end + 1;
  }
  found.push(command.slice(start));
  return found;
}

const markOf = (mark) => (mark === "-" ? "" : mark);

/** Does with a message what its text says; `count` is how many there were, and `loaded` what the state has. */
export function obey(message, out, count, loaded) {
  // Half a character stands for half a surrogate pair, which no message has.
  const text = message.text?.replaceAll("½", "\ud800");
  if (text === undefined) {
    out.emit(message.bytes.reverse());
    return;
  }
  const colon = text.indexOf(":");
  const rest = text.slice(colon + 1);
  switch (colon < 0 ? text : text.slice(0, colon)) {
    case "drop":
    case "save":
      break;
    case "emit": {
      const [output, mark, said] = split(rest, 3);
      out.emit(said, mark === "" ? { output } : { output, metadata: { mark: markOf(mark) } });
      break;
    }
    case "both":
      out.forward();
      out.emit(rest);
      break;
    case "mark":
      out.forward();
      out.setMetadata("mark", markOf(rest));
      break;
    case "room":
      out.emit(message.metadata("room"));
      break;
    case "time":
      out.emit(String(message.receivedUs ?? 0));
      break;
    case "count":
      out.emit(String(count));
      break;
    case "load":
      out.emit(loaded.get(rest));
      break;
    case "later": {
      const [afterMs, reason] = split(rest, 2);
      out.retry(reason, Number(afterMs));
      break;
    }
    case "reject":
      out.reject(rest);
      break;
    case "fail":
      throw rest;
    case "throw":
      throw new TypeError(rest);
    default:
      out.forward(text === "forward:side" ? "side" : "default");
  }
}

/** Does what a batch says of the host's state, in one call each; gives what was loaded. */
export function saveAndLoad(batch) {
  const changes = [];
  const keys = [];
  for (const { text } of batch) {
    if (text?.startsWith("save:")) {
      const [, key, ttlMs, value] = split(text, 4);
      changes.push({ key, value: value === "-" ? null : value, ttlMs: ttlMs === "0" ? undefined : Number(ttlMs) });
    } else if (text?.startsWith("load:")) {
      keys.push(text.slice("load:".length));
    }
  }
  state.setMany(changes);
  const values = state.getMany(keys);
  return new Map(keys.map((key, n) => [key, values[n] === undefined ? "-" : utf8.decode(values[n])]));
}
