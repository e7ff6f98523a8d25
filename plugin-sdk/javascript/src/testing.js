// Unit tests of plugins without WebAssembly: a harness that does what the host does, and the host's services in memory.

import { fake } from "./host/native/fake.js";
import { utf8 } from "./index.js";

/** The host's services: the state, metrics, log, time, chance and HTTP answers that a test sets and looks at. */
export const host = fake;

/** Runs a transform in a test. */
export class Harness {
  #transformer;

  /** Makes the plugin of this configuration; throws what is wrong with it. */
  constructor(transformer, config = {}, facts = {}) {
    this.#transformer = transformer;
    this.description = thrown(() => transformer.init(JSON.stringify(config), Object.entries(facts)));
  }

  /**
   * Gives the plugin messages: texts, bytes, or `{ payload, metadata, receivedUs }`. What comes of them: `sent`, a list of
   * `{ text, bytes, output, metadata, origin }`; `rejected`, of `[index, reason]`; `retry`.
   */
  process(messages) {
    const { description } = this;
    const all = messages.map((message) =>
      typeof message === "string" || message instanceof Uint8Array ? { payload: message } : message,
    );
    const parsed = all.map(({ payload }) => parse(payload));
    const rejected = [];
    const seen = all.map((_, index) => index).filter((index) => parsed[index] !== undefined || !description.json);
    for (const index of all.keys()) if (!seen.includes(index)) rejected.push([index, "not JSON"]);
    if (seen.length === 0) return { sent: [], rejected, retry: null };
    const outcome = thrown(() => this.#transformer.process(this.#batch(seen.map((index) => [all[index], parsed[index]]))));
    return this.#outcome(outcome, all, parsed, seen, rejected);
  }

  /** Lets the timer go off; what it sends. */
  tick(nowUs = fake.nowUs) {
    return this.#emitted(thrown(() => this.#transformer.tick(nowUs)));
  }

  /** Says that no message will follow; what it sends. */
  finish() {
    return this.#emitted(thrown(() => this.#transformer.finish()));
  }

  /** The bytes of the state; null if there is none. */
  snapshot() {
    return thrown(() => this.#transformer.snapshot());
  }

  /** Gives it the state of one instance, or of several. */
  restore(snapshots, part = 0, parts = 1) {
    thrown(() => this.#transformer.restore([snapshots].flat(), part, parts));
  }

  #batch(seen) {
    const { reads, fields, payloads, times } = this.description;
    const metadata = reads.map((key) => ({ tag: "each", val: seen.map(([{ metadata }]) => metadata?.[key] ?? "") }));
    const found = fields.map(({ pointer, kind }) => {
      const values = seen.map(([, parsed]) => fieldOf(at(parsed, pointer), kind));
      return { tag: "field", val: { tag: kind === "number" ? "numbers" : "each", val: values } };
    });
    const columns = [...metadata, ...found];
    return {
      count: seen.length,
      payloads: payloads ? { tag: "each", val: seen.map(([{ payload }]) => crossing(payload)) } : null,
      times: times ? seen.map(([{ receivedUs }]) => receivedUs ?? fake.nowUs) : null,
      columns: columns.length > 0 ? columns : null,
    };
  }

  #outcome(outcome, all, parsed, seen, rejected) {
    const { forward, emissions } = outcome;
    const places = forward.tag === "all" ? seen.map((_, n) => n) : (forward.val ?? []);
    const sent = [];
    places.forEach((place, n) => {
      const index = seen[place];
      const { payload, metadata = {} } = all[index];
      const edited = this.#edited(payload, parsed[index], outcome.edits, n);
      if (edited === undefined) {
        rejected.push([index, "the message has no object for an edit"]);
        return;
      }
      const output = this.#output(outcome.forwardOutputs[n]);
      sent.push({ ...edited, output, metadata: this.#written(metadata, outcome.forwardMetadata, n), origin: index });
    });
    const emitted = this.#emitted(emissions, (place) => all[seen[place]].metadata ?? {});
    emitted.forEach((message) => (message.origin = seen[message.origin]));
    rejected.push(...outcome.rejections.map(({ message, reason }) => [seen[message], reason]));
    // Of one origin what is forwarded goes out first, and sorting keeps the order of equals.
    const inOrder = [...sent, ...emitted].sort((one, other) => one.origin - other.origin);
    const retry = outcome.retry && { ...outcome.retry, message: seen[outcome.retry.message] };
    return { sent: inOrder, rejected: rejected.sort(([one], [other]) => one - other), retry };
  }

  #edited(payload, parsed, edits, n) {
    const value = structuredClone(parsed);
    let isEdited = false;
    for (const [place, { tag, val }] of edits.entries()) {
      const change = tag === "numbers" ? (Number.isNaN(val[n]) ? null : val[n]) : val[n];
      if (change === null) continue;
      const path = this.description.edits[place].split("/").slice(1).map(unescaped);
      const name = path.pop();
      const parent = path.reduce((of, key) => of?.[key], value);
      if (typeof parent !== "object" || parent === null) return undefined;
      if (change === "") delete parent[name];
      else parent[name] = typeof change === "number" ? change : JSON.parse(change);
      isEdited = true;
    }
    return payloadOf(isEdited ? JSON.stringify(value) : payload);
  }

  #emitted(emissions, inherited = () => ({})) {
    if (emissions === null) return [];
    return emissions.payloads.val.map(({ val }, n) => ({
      ...payloadOf(val),
      output: this.#output(emissions.outputs[n]),
      metadata: this.#written(inherited(emissions.origins[n]), emissions.metadata, n),
      origin: emissions.origins[n],
    }));
  }

  #output(number = 0) {
    return number === 0 ? "default" : this.description.outputs[number - 1];
  }

  #written(metadata, writings, n) {
    const written = { ...metadata };
    writings.forEach(({ tag, val }, key) => {
      const value = {
        inherit: () => undefined,
        same: () => val,
        each: () => val[n],
        sparse: () => val.find(({ index }) => index === n)?.value,
      }[tag]();
      if (value !== undefined) written[this.description.writes[key]] = value;
      if (value === "") delete written[this.description.writes[key]];
    });
    return written;
  }
}

/** The host shows what is thrown as a text. */
function thrown(call) {
  try {
    return call();
  } catch (error) {
    throw typeof error === "string" ? new Error(error) : error;
  }
}

function parse(payload) {
  try {
    return JSON.parse(typeof payload === "string" ? payload : utf8.decode(payload));
  } catch {
    return undefined;
  }
}

const crossing = (payload) =>
  typeof payload === "string" ? { tag: "text", val: payload } : { tag: "binary", val: payload };
const payloadOf = (payload) =>
  typeof payload === "string" ? { text: payload } : { text: undefined, bytes: payload };
const unescaped = (name) => name.replaceAll("~1", "/").replaceAll("~0", "~");

function at(value, pointer) {
  return pointer.split("/").slice(1).map(unescaped).reduce((of, key) => own(of, key), value);
}

const own = (of, key) => (typeof of === "object" && of !== null && Object.hasOwn(of, key) ? of[key] : undefined);

function fieldOf(value, kind) {
  if (kind === "json") return value === undefined ? null : JSON.stringify(value);
  if (kind === "text") return typeof value === "string" ? value : null;
  if (typeof value === "number") return value;
  return typeof value === "string" && /^[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?$/.test(value) ? Number(value) : NaN;
}
