// What comes in: a batch of messages, read from the columns in which it crossed.

import { place } from "./names.js";
import { encode } from "./utf8.js";

/** Messages in the order in which they came. */
export class Batch {
  #raw;
  #shape;

  constructor(shape, raw) {
    this.#shape = shape;
    this.#raw = raw;
    /** How many messages there are; at least one. */
    this.length = raw.count;
    this.payloads = raw.payloads?.val;
    this.times = raw.times ?? undefined;
    const { columns } = raw;
    const reads = shape.reads.size;
    this.metadataColumns = columns?.slice(0, reads);
    this.fieldColumns = columns?.slice(reads).map((column) => column.val.val);
  }

  /** The message at an index. */
  at(index) {
    return new this.#shape.Message(this, index);
  }

  /** The messages, in order. */
  [Symbol.iterator]() {
    return Array.from({ length: this.length }, (_, index) => this.at(index))[Symbol.iterator]();
  }

  /** The values of a field, one a message: NaN (of a number) or null where a message does not have it. */
  column(field) {
    return this.fieldColumns[place(this.#shape.fields, field, "fields")];
  }

  /** The value of a metadata key of one message. */
  metadataOf(key, index) {
    const column = this.metadataColumns?.[place(this.#shape.reads, key, "reads")];
    if (column === undefined) return "";
    return column.tag === "same" ? column.val : column.val[index];
  }
}

/** One message of a batch. Each field that the plugin declares is a property of it. */
export class Message {
  constructor(batch, index) {
    this.batch = batch;
    /** Its place in the batch. */
    this.index = index;
  }

  /** Whether it is a text message; true if the plugin does without payloads. */
  get isText() {
    const { payloads } = this.batch;
    return payloads === undefined || payloads[this.index].tag === "text";
  }

  /** Its text; undefined of a binary message. "" if the plugin does without payloads. */
  get text() {
    const payload = this.batch.payloads?.[this.index];
    if (payload === undefined) return "";
    return payload.tag === "text" ? payload.val : undefined;
  }

  /** Its bytes, of a text those of its UTF-8. */
  get bytes() {
    const payload = this.batch.payloads?.[this.index];
    if (payload === undefined) return new Uint8Array();
    return payload.tag === "text" ? encode(payload.val) : Uint8Array.from(payload.val);
  }

  /** What its text is as JSON. Fields that are declared are much faster. */
  parse() {
    return JSON.parse(this.text);
  }

  /** When it was received, in microseconds since the Unix epoch; undefined unless the plugin wants `times`. */
  get receivedUs() {
    return this.batch.times?.[this.index];
  }

  /** The value of a metadata key; "" if the message does not have it. */
  metadata(key) {
    return this.batch.metadataOf(key, this.index);
  }

  /** A `json` field as it stands in the message; undefined if it is not there. */
  raw(field) {
    return this.batch.column(field)[this.index] ?? undefined;
  }
}

/** The class of messages that have these fields as properties. */
export function messageWith(fields) {
  // As a class that extends Message would be, without the calls that make one.
  function MessageWithFields(batch, index) {
    this.batch = batch;
    this.index = index;
  }
  MessageWithFields.prototype = Object.create(Message.prototype);
  Object.entries(fields).forEach(([name, { kind }], place) => {
    if (name in Message.prototype || name === "batch" || name === "index") {
      throw new TypeError(`a field cannot be named "${name}", which is a property of every message`);
    }
    const get = GETTERS[kind](place);
    Object.defineProperty(MessageWithFields.prototype, name, { get, enumerable: true });
  });
  return MessageWithFields;
}

const GETTERS = {
  number: (place) =>
    function () {
      const number = this.batch.fieldColumns[place][this.index];
      return number === number ? number : undefined;
    },
  text: (place) =>
    function () {
      return this.batch.fieldColumns[place][this.index] ?? undefined;
    },
  json: (place) =>
    function () {
      const raw = this.batch.fieldColumns[place][this.index] ?? undefined;
      return raw === undefined ? undefined : JSON.parse(raw);
    },
};
