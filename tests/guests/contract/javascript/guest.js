// The contract's fixture guest in JavaScript: ../README.md says what it does.

import { Emissions, marks, text } from "./columns.js";
import { MODES, decide } from "./fields.js";
import state from "tidemill:plugin/state@0.1.0";

const OUTPUTS = ["default", "side"];

let count = 0;
let mode = "";

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

export const transformer = {
  init(config) {
    if (config.includes('"refuse"')) throw "refused, as asked";
    const observe = config.includes('"observe"');
    const blind = config.includes('"blind"');
    mode = Object.keys(MODES).find((name) => config.includes(`"${name}"`)) ?? (blind ? "blind" : "");
    const { fields, edits } = MODES[mode] ?? { fields: [], edits: [] };
    return {
      outputs: ["side"],
      reads: observe ? ["room"] : [],
      writes: ["mark"],
      fields,
      edits,
      json: config.includes('"json"'),
      form: "each",
      payloads: !blind,
      times: observe,
      tickMs: 50,
      options: [],
    };
  },

  process(batch) {
    if (mode === "") return obey(batch);
    count += batch.count;
    if (mode !== "blind") return decide(mode, batch);
    return {
      forward: { tag: "all" },
      forwardOutputs: [],
      forwardMetadata: [],
      edits: [],
      emissions: null,
      rejections: [],
      retry: null,
    };
  },

  tick(nowUs) {
    if (count === 0) return null;
    return {
      payloads: { tag: "each", val: [text(`tick:${nowUs}:${count}`)] },
      origins: [],
      outputs: [],
      metadata: [{ tag: "same", val: "timer" }],
    };
  },

  finish() {
    return {
      payloads: { tag: "each", val: [text(`finish:${count}`)] },
      origins: [],
      outputs: [1],
      metadata: [],
    };
  },

  snapshot() {
    return count === 0 ? null : bytes(String(count));
  },

  restore(snapshots, part, parts) {
    let kept = 0;
    for (const line of snapshots.flatMap((snapshot) => String.fromCharCode(...snapshot).split("\n"))) {
      const equals = line.lastIndexOf("=");
      const digits = line.slice(equals + 1);
      if (!/^[0-9]+$/.test(digits)) throw "not a count";
      const owner = equals < 0 ? 0 : Number(fnv1a(line.slice(0, equals)) % BigInt(parts));
      if (owner === part) kept += Number(digits);
    }
    count = kept;
  },
};

/** Does with each message what its text says. */
function obey({ payloads, times, columns }) {
  const messages = payloads.val;
  const loaded = saveAndLoad(messages);
  const emitted = new Emissions();
  const forwarded = [];
  const forwardOutputs = [];
  const forwardMarks = [];
  const rejections = [];
  let retry = null;
  const forward = (index, output, mark = "") => {
    forwarded.push(index);
    forwardOutputs.push(output);
    forwardMarks.push(mark);
  };
  const room = (index) => {
    const column = columns?.[0];
    if (!column) return "";
    return column.tag === "same" ? column.val : column.val[index];
  };

  for (let index = 0; index < messages.length && retry === null; index++) {
    const { tag, val } = messages[index];
    count += 1;
    if (tag === "binary") {
      emitted.add(index, 0, { tag: "binary", val: Uint8Array.from(val).reverse() });
      continue;
    }
    const colon = val.indexOf(":");
    const rest = val.slice(colon + 1);
    switch (colon < 0 ? val : val.slice(0, colon)) {
      case "drop":
      case "save":
        break;
      case "emit": {
        const [output, mark, said] = split(rest, 3);
        emitted.add(index, OUTPUTS.indexOf(output), text(said), mark);
        break;
      }
      case "both":
        forward(index, 0);
        emitted.add(index, 0, text(rest));
        break;
      case "mark":
        forward(index, 0, rest);
        break;
      case "room":
        emitted.add(index, 0, text(room(index)));
        break;
      case "time":
        emitted.add(index, 0, text(String(times ? times[index] : 0)));
        break;
      case "count":
        emitted.add(index, 0, text(String(count)));
        break;
      case "load":
        emitted.add(index, 0, text(loaded.get(rest)));
        break;
      case "later": {
        const [afterMs, reason] = split(rest, 2);
        retry = { message: index, reason, afterMs: Number(afterMs) };
        break;
      }
      case "reject":
        rejections.push({ message: index, reason: rest });
        break;
      case "fail":
        throw rest;
      default:
        forward(index, val === "forward:side" ? 1 : 0);
    }
  }

  const all = forwarded.length === messages.length;
  const none = forwarded.length === 0;
  return {
    forward: none ? { tag: "nothing" } : all ? { tag: "all" } : { tag: "these", val: forwarded },
    forwardOutputs: forwardOutputs.every((output) => output === 0) ? [] : forwardOutputs,
    forwardMetadata: marks(forwardMarks),
    edits: [],
    emissions: emitted.columns(),
    rejections,
    retry,
  };
}

/** Does what a batch says of the host's state, in one call each; gives what was loaded. */
function saveAndLoad(messages) {
  const changes = [];
  const keys = [];
  for (const { tag, val } of messages) {
    if (tag !== "text") continue;
    if (val.startsWith("save:")) {
      const [, key, ttlMs, value] = split(val, 4);
      changes.push({ key, value: value === "-" ? null : bytes(value), ttlMs: Number(ttlMs) });
    } else if (val.startsWith("load:")) {
      keys.push(val.slice("load:".length));
    }
  }
  if (changes.length > 0) state.setMany(changes);
  const values = keys.length > 0 ? state.getMany(keys) : [];
  return new Map(keys.map((key, n) => [key, values[n] ? String.fromCharCode(...values[n]) : "-"]));
}

/** The bytes of a text of ASCII characters. */
function bytes(ascii) {
  return Array.from(ascii, (char) => char.charCodeAt(0));
}

/** The hash by which instances share out keys, of a key of ASCII characters. */
function fnv1a(key) {
  let hash = 14695981039346656037n;
  for (const byte of bytes(key)) hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 1099511628211n);
  return hash;
}
