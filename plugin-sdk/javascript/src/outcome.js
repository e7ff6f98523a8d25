// What became of a batch: which messages go on, what is new, what is refused.

import { EditColumn, MetadataColumn, lowered } from "./columns.js";
import { wholeMs } from "./duration.js";
import { Emissions } from "./emissions.js";
import { place } from "./names.js";
import { wellFormed } from "./utf8.js";

/**
 * What became of the messages of a batch, told one message after the other. Those it is told nothing of are filtered.
 *
 * QuickJS takes a few dozen nanoseconds for each property, so what most batches do without is only made when it is needed:
 * forwarded messages are counted as long as there is no gap, and outputs are listed from the first that is named.
 */
export class Outcome {
  #shape;
  #index = -1;
  /** Messages 0 to `count` go on, while `listed` is undefined. */
  #count = 0;
  #listed;
  #outputs;
  #edits;
  #metadata;
  #emissions;
  #origins = [];
  #rejections = [];
  #rejected = -1;
  #retry = null;

  constructor(shape) {
    this.#shape = shape;
    this.#emissions = new Emissions(shape);
  }

  /** The way out of the message at an index: what is said next is about that one, and after it of later ones only. */
  of(index) {
    if (this.#retry !== null) throw new Error("nothing is decided on behind a message that is to be offered again");
    if (index < this.#index) throw new Error("messages are decided on in their order");
    if (this.#rejected >= 0) this.#settle();
    this.#index = index;
    return this;
  }

  /** Whether a message is to be offered again: then those behind it are not decided on. */
  get isStopped() {
    return this.#retry !== null;
  }

  /** Lets the message go on, as a rule to the output "default". Of several calls the last counts. */
  forward(output) {
    const index = this.#index;
    if (this.#listed === undefined) {
      if (index === this.#count) {
        this.#count++;
      } else if (index > this.#count) {
        this.#listed = Array.from({ length: this.#count }, (_, n) => n);
        this.#listed.push(index);
      }
    } else if (this.#listed[this.#listed.length - 1] !== index) {
      this.#listed.push(index);
    }
    if (output !== undefined || this.#outputs !== undefined) {
      const number = output === undefined ? 0 : place(this.#shape.outputs, output, "outputs");
      this.#setOutput(number);
    }
  }

  /** Lets all messages of a batch go on, those already told of aside. */
  forwardAll(batch) {
    const first = this.#index + 1;
    if (first >= batch.length) return;
    if (this.#listed === undefined && this.#count === first && this.#outputs === undefined) {
      this.of(batch.length - 1);
      this.#count = batch.length;
    } else {
      for (let index = first; index < batch.length; index++) this.of(index).forward();
    }
  }

  /**
   * Sets a member of the message, if it goes on. A whole number is written as one, unless the edit is declared as a
   * number; NaN is written as null, and undefined leaves the member as it is.
   */
  set(edit, value) {
    this.#edit(edit).set(this.#index, value);
  }

  /** Sets a member of the message, if it goes on, to a JSON text. */
  setJson(edit, json) {
    if (typeof json !== "string" || json === "") throw new TypeError("setJson takes a JSON text");
    this.#edit(edit).setJson(this.#index, json);
  }

  /** Removes a member of the message, if it goes on. */
  remove(edit) {
    this.#edit(edit).setJson(this.#index, "");
  }

  /** Gives the message a value of a metadata key, if it goes on; "" removes the key. */
  setMetadata(key, value) {
    const column = place(this.#shape.writes, key, "writes");
    this.#metadata ??= Array.from(this.#shape.writes, () => new MetadataColumn());
    this.#metadata[column].set(this.#index, value);
  }

  /** Sends a new message that came from this one and inherits its metadata; see {@link Emissions.emit}. */
  emit(value, options) {
    this.#emissions.emit(value, options);
    this.#origins.push(this.#index);
  }

  /** Refuses the message, and takes back what was told of it. */
  reject(reason) {
    this.#takeBack();
    if (this.#rejected === this.#index) this.#rejections.pop();
    this.#retry = null;
    this.#rejected = this.#index;
    this.#rejections.push({ message: this.#index, reason: wellFormed(String(reason)) });
  }

  /**
   * Says that nothing can be decided yet. The host offers this message, and all behind it, again after this time; after
   * as many times as the transform's `retries` say, it counts as rejected for this reason. A time below 0 is 0.
   */
  retry(reason, afterMs) {
    if (typeof afterMs !== "number" || Number.isNaN(afterMs)) {
      throw new TypeError("retry takes a reason, and after how many milliseconds");
    }
    this.#takeBack();
    if (this.#rejected === this.#index) {
      this.#rejections.pop();
      this.#rejected = -1;
    }
    this.#retry = { message: this.#index, reason: wellFormed(String(reason)), afterMs: wholeMs(afterMs) };
  }

  #forwarded() {
    return this.#listed === undefined ? this.#count : this.#listed.length;
  }

  /** The output of the last forwarded message. */
  #setOutput(number) {
    if (number === 0 && this.#outputs === undefined) return;
    const forwarded = this.#forwarded();
    this.#outputs ??= [];
    while (this.#outputs.length < forwarded) this.#outputs.push(0);
    this.#outputs[forwarded - 1] = number;
  }

  #edit(name) {
    const column = place(this.#shape.edits, name, "edits");
    this.#edits ??= this.#shape.editIsNumber.map((isNumber) => new EditColumn(isNumber));
    return this.#edits[column];
  }

  /** What was told of a message after it was refused, or put off, does not count. */
  #settle() {
    if (this.#rejected === this.#index || this.#retry !== null) this.#takeBack();
  }

  #takeBack() {
    const index = this.#index;
    if (this.#listed === undefined) {
      this.#count = Math.min(this.#count, index);
    } else if (this.#listed[this.#listed.length - 1] === index) {
      this.#listed.pop();
    }
    if (this.#outputs !== undefined) this.#outputs.length = Math.min(this.#outputs.length, this.#forwarded());
    while (this.#origins.length > 0 && this.#origins[this.#origins.length - 1] === index) this.#origins.pop();
    this.#emissions.keep(this.#origins.length);
    this.#edits?.forEach((column) => column.keep(index));
    this.#metadata?.forEach((column) => column.keep(index));
  }

  /** As the contract wants it. */
  lower(count) {
    this.#settle();
    const forwarded = this.#forwarded();
    const indices = this.#listed ?? forwarded;
    return {
      forward: this.#forward(forwarded, count),
      forwardOutputs: this.#outputs ?? [],
      forwardMetadata: lowered(this.#metadata, indices),
      edits: lowered(this.#edits, indices),
      emissions: this.#emissions.lower(this.#origins),
      rejections: this.#rejections,
      retry: this.#retry,
    };
  }

  #forward(forwarded, count) {
    if (forwarded === 0) return { tag: "nothing" };
    if (forwarded === count) return { tag: "all" };
    return { tag: "these", val: this.#listed ?? Array.from({ length: forwarded }, (_, n) => n) };
  }
}
