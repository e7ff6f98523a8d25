// New messages on their way out.

import { MetadataColumn, lowered } from "./columns.js";
import { place } from "./names.js";
import { wellFormed } from "./utf8.js";

/** New messages that have no origin: the way out of `tick` and `finish`. */
export class Emissions {
  #shape;
  #payloads = [];
  #outputs = [];
  #hasOutputs = false;
  #metadata;

  constructor(shape) {
    this.#shape = shape;
  }

  /** How many there are. */
  get length() {
    return this.#payloads.length;
  }

  /**
   * Sends a new message. A text and bytes go as they are, anything else as JSON. `output` names a way out, and
   * `metadata` has values for keys, of which "" removes the key.
   */
  emit(value, options) {
    const index = this.#payloads.length;
    let output = 0;
    if (options !== undefined) {
      if (options.output !== undefined) output = place(this.#shape.outputs, options.output, "outputs");
      for (const [key, text] of Object.entries(options.metadata ?? {})) {
        const column = place(this.#shape.writes, key, "writes");
        this.#metadata ??= Array.from(this.#shape.writes, () => new MetadataColumn());
        this.#metadata[column].set(index, text);
      }
    }
    this.#payloads.push(payload(value));
    this.#outputs.push(output);
    this.#hasOutputs ||= output !== 0;
  }

  /** Forgets those from this number on. */
  keep(count) {
    this.#payloads.length = count;
    this.#outputs.length = count;
    this.#metadata?.forEach((column) => column.keep(count));
  }

  /** As the contract wants them; null if there are none. */
  lower(origins = []) {
    const count = this.#payloads.length;
    if (count === 0) return null;
    return {
      payloads: { tag: "each", val: this.#payloads },
      origins,
      outputs: this.#hasOutputs ? this.#outputs : [],
      metadata: this.#metadata === undefined ? [] : lowered(this.#metadata, count),
    };
  }
}

function payload(value) {
  if (typeof value === "string") return { tag: "text", val: wellFormed(value) };
  if (value instanceof Uint8Array) return { tag: "binary", val: value };
  if (value instanceof ArrayBuffer) return { tag: "binary", val: new Uint8Array(value) };
  const json = JSON.stringify(value);
  if (json === undefined) throw new TypeError(`what is emitted is ${typeof value}, which is no JSON`);
  return { tag: "text", val: json };
}
