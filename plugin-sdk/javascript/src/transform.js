// A plugin of a pipeline: what the host calls, around what the plugin says.

import { Batch, messageWith } from "./batch.js";
import { readConfig } from "./config.js";
import { Emissions, mostBytes } from "./emissions.js";
import { guarded, refusing, settled } from "./failure.js";
import * as json from "./json.js";
import { places, refuseMisspelt, refuseUnread } from "./names.js";
import { Outcome } from "./outcome.js";
import { Part } from "./part.js";
import { Field, checked } from "./field.js";
import { Snapshot } from "./snapshot.js";

/** The contract counts milliseconds in 32 bits. */
const MOST_MS = 0xffffffff;
/** What a plugin may have. */
const KNOWN = [
  "outputs",
  "reads",
  "writes",
  "fields",
  "edits",
  "onlyJson",
  "guards",
  "payloads",
  "times",
  "tickEvery",
  "process",
  "processBatch",
  "tick",
  "finish",
  "snapshot",
  "restore",
  "restorePart",
];

/**
 * Makes a transform: `export const transformer = transform(plugin)`, or `transform({ config }, (config, facts) =>
 * plugin)` of one that has a configuration. Throws what is wrong with it, as far as that is known before there is a
 * configuration: a component of it is not built then.
 */
export function transform(given, make) {
  if (make !== undefined) refuseUnread(given, make);
  const keys = make === undefined ? {} : given.config;
  let plugin;
  let shape = make === undefined ? shapeOf(given) : undefined;
  let most;
  return {
    init: (config, facts) =>
      refusing(() => {
        const read = readConfig(keys, config);
        const known = Object.fromEntries(facts);
        most = mostBytes(known);
        plugin = make === undefined ? given : settled(make(read, known));
        shape ??= shapeOf(plugin);
        return shape.description;
      }),

    process: (raw) =>
      guarded(() => {
        const batch = new Batch(shape, raw);
        const outcome = new Outcome(shape);
        if (plugin.processBatch) settled(plugin.processBatch(batch, outcome));
        else decideEach(plugin, shape.Message, batch, outcome);
        return outcome.lower(raw.count);
      }),

    tick: (nowUs) =>
      guarded(() => {
        const emissions = new Emissions(shape);
        settled(plugin.tick?.(nowUs, emissions));
        return emissions.lower();
      }),

    finish: () =>
      guarded(() => {
        const emissions = new Emissions(shape, most);
        settled(plugin.finish?.(emissions));
        return emissions.lower();
      }),

    snapshot: () =>
      refusing(() => {
        const state = settled(plugin.snapshot?.());
        if (state === undefined || state === null) return null;
        return state instanceof Uint8Array ? state : json.encode(state);
      }),

    restore: (snapshots, part, parts) =>
      refusing(() => restore(plugin, snapshots.map((bytes) => new Snapshot(bytes)), new Part(part, parts))),
  };
}

/** A plugin as it is: what TypeScript needs around one that a function returns. */
export const plugin = (given) => given;

function decideEach(plugin, Message, batch, outcome) {
  const { length } = batch;
  for (let index = 0; index < length; index++) {
    const result = plugin.process(new Message(batch, index), outcome.of(index));
    if (result !== undefined) settled(result);
    if (outcome.isStopped) break;
  }
}

function restore(plugin, snapshots, part) {
  if (plugin.restorePart) {
    settled(plugin.restorePart(snapshots, part));
  } else if (plugin.restore && snapshots.length > 0) {
    if (snapshots.length > 1 || !part.isWhole) {
      throw new Error("the plugin cannot share its state out between instances: it has no restorePart");
    }
    settled(plugin.restore(snapshots[0].json()));
  }
}

/** The places of all names that the plugin declares, and what the host is told of them. */
function shapeOf(plugin) {
  refuseMisspelt(plugin, KNOWN, "a plugin");
  const { outputs = [], reads = [], writes = [], fields = {}, edits = {}, tickEvery = 0 } = plugin;
  if (typeof plugin.process !== "function" && typeof plugin.processBatch !== "function") {
    throw new TypeError("the plugin has no function process(message, out)");
  }
  for (const [name, field] of Object.entries(fields)) {
    if (!(field instanceof Field)) throw new TypeError(`the field "${name}" is not made by field.number, field.text or field.json`);
  }
  if (!(tickEvery >= 0)) throw new TypeError("tickEvery is a number of milliseconds");
  const pointers = Object.values(edits).map((edit) => (edit instanceof Field ? edit.pointer : checked(edit)));
  return {
    outputs: new Map([["default", 0], ...places(outputs, 1)]),
    reads: places(reads),
    writes: places(writes),
    fields: places(Object.keys(fields)),
    edits: places(Object.keys(edits)),
    editIsNumber: Object.values(edits).map((edit) => edit instanceof Field && edit.kind === "number"),
    Message: messageWith(fields),
    description: {
      outputs,
      reads,
      writes,
      fields: Object.values(fields).map(({ pointer, kind }) => ({ pointer, kind })),
      edits: pointers,
      json: plugin.onlyJson ?? false,
      form: "each",
      payloads: plugin.payloads ?? true,
      times: plugin.times ?? false,
      tickMs: tickEvery === 0 ? 0 : Math.min(Math.max(Math.round(tickEvery), 1), MOST_MS),
      options: plugin.guards ? [["guards", "true"]] : [],
    },
  };
}
