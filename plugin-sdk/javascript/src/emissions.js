// New messages on their way out.

import { MetadataColumn, lowered } from "./columns.js";
import { place } from "./names.js";
import { encode, wellFormed } from "./utf8.js";

/** What the host counts for an emission and its payload beside their bytes. */
const EMISSION_BYTES = 192;
/** What the host counts for metadata beside its bytes: of an emission if any has some, and of each value. */
const METADATA_BYTES = 64;
/** What there is where the host says nothing. */
const OUTPUT_BYTES = 16 << 20;
const MEMORY_BYTES = 64 << 20;

/** How much one call may send, by the facts. What is sent is there twice for a moment, beside all that the plugin knows. */
export const mostBytes = ({ output_bytes = OUTPUT_BYTES, memory_bytes = MEMORY_BYTES }) =>
  Math.min(Number(output_bytes), Number(memory_bytes) / 4);

/** New messages that have no origin: the way out of `tick` and `finish`. */
export class Emissions {
  #shape;
  #payloads = [];
  #outputs = [];
  #hasOutputs = false;
  #metadata;
  /** What the host takes, and what it counts for what is there, where that is looked at. */
  #mostBytes;
  #bytes = 0;

  constructor(shape, mostBytes) {
    this.#shape = shape;
    this.#mostBytes = mostBytes;
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
        if (this.#mostBytes !== undefined) this.#bytes += METADATA_BYTES + bytesOf(text);
      }
    }
    const sent = payload(value);
    if (this.#mostBytes !== undefined) this.#bytes += EMISSION_BYTES + bytesOf(sent.val);
    this.#payloads.push(sent);
    this.#outputs.push(output);
    this.#hasOutputs ||= output !== 0;
  }

  /** Has a function emit, and takes that back if the host would not take it with the others. Says whether it stays. */
  emitIfItFits(emit) {
    const count = this.#payloads.length;
    const bytes = this.#bytes;
    emit();
    const ofMetadata = this.#metadata === undefined ? 0 : this.#payloads.length * METADATA_BYTES;
    if (this.#mostBytes === undefined || this.#bytes + ofMetadata <= this.#mostBytes) return true;
    this.keep(count);
    this.#bytes = bytes;
    return false;
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

/** The bytes of a text in UTF-8, or of bytes. */
function bytesOf(value) {
  return typeof value === "string" && NOT_ASCII.test(value) ? encode(value).length : value.length;
}

const NOT_ASCII = /[^\0-\x7f]/;

function payload(value) {
  if (typeof value === "string") return { tag: "text", val: wellFormed(value) };
  if (value instanceof Uint8Array) return { tag: "binary", val: value };
  if (value instanceof ArrayBuffer) return { tag: "binary", val: new Uint8Array(value) };
  const json = JSON.stringify(value);
  if (json === undefined) throw new TypeError(`what is emitted is ${typeof value}, which is no JSON`);
  return { tag: "text", val: json };
}
