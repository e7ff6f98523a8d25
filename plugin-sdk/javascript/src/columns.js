// Columns on their way out: the values that messages were given, one by one, as the contract wants them.

import { wellFormed } from "./utf8.js";

/** The values that some of the messages, or of the emissions, were given; each has at most one. */
class Column {
  indices = [];
  values = [];

  put(index, value) {
    const last = this.indices.length - 1;
    if (last >= 0 && this.indices[last] === index) {
      this.values[last] = value;
      return;
    }
    this.indices.push(index);
    this.values.push(value);
  }

  /** Forgets the values from this index on. */
  keep(index) {
    while (this.indices.length > 0 && this.indices[this.indices.length - 1] >= index) {
      this.indices.pop();
      this.values.pop();
    }
  }

  /** The values of all these indices, `absent` where there is none. */
  spread(indices, absent) {
    if (this.covers(indices)) return this.values;
    let next = 0;
    return listOf(indices).map((index) => {
      while (next < this.indices.length && this.indices[next] < index) next++;
      return this.indices[next] === index ? this.values[next++] : absent;
    });
  }

  /** Whether it has a value for each of these indices, and no other. */
  covers(indices) {
    const count = this.indices.length;
    if (typeof indices === "number") return count === indices && this.indices[count - 1] === count - 1;
    return count === indices.length && this.indices.every((index, n) => index === indices[n]);
  }
}

/** Indices: a list, or a number, which stands for all below it. */
const listOf = (indices) => (typeof indices === "number" ? Array.from({ length: indices }, (_, n) => n) : indices);

/** What one place in the forwarded messages is changed to. */
export class EditColumn extends Column {
  #allNumbers = true;
  #isNumber;

  /** `isNumber`: whether it was declared as a number, and is always written as one with a point. */
  constructor(isNumber) {
    super();
    this.#isNumber = isNumber;
  }

  set(index, value) {
    if (typeof value === "number") {
      // A whole number is written without a point, as JSON.stringify does; what is no number leaves a rest of NaN.
      const rest = value % 1;
      if (rest === 0 ? this.#isNumber : rest === rest) this.put(index, value);
      else this.setJson(index, JSON.stringify(value));
    } else if (this.#isNumber) {
      throw new TypeError(`an edit that is declared as a number is set to a ${typeof value}`);
    } else if (typeof value === "bigint") {
      this.setJson(index, String(value));
    } else if (value !== undefined) {
      const json = JSON.stringify(value);
      if (json === undefined) throw new TypeError(`a ${typeof value} is no JSON`);
      this.setJson(index, json);
    }
  }

  setJson(index, json) {
    this.#allNumbers = false;
    this.put(index, wellFormed(json));
  }

  lower(forwarded) {
    if (this.#allNumbers) return { tag: "numbers", val: this.spread(forwarded, NaN) };
    const texts = this.spread(forwarded, null);
    return { tag: "each", val: texts.map((value) => (typeof value === "number" ? written(value) : value)) };
  }
}

/** A number as the host writes one: 2 as 2.0. */
function written(number) {
  const text = JSON.stringify(number);
  return /[.e]/.test(text) ? text : `${text}.0`;
}

/** The values that one metadata key is given. */
export class MetadataColumn extends Column {
  set(index, value) {
    if (typeof value !== "string") throw new TypeError(`metadata is text, and not a ${typeof value}`);
    this.put(index, wellFormed(value));
  }

  lower(indices) {
    if (this.covers(indices)) {
      const [first] = this.values;
      if (this.values.every((value) => value === first)) return { tag: "same", val: first };
      return { tag: "each", val: this.values };
    }
    const settings = [];
    this.spread(indices, undefined).forEach((value, index) => {
      if (value !== undefined) settings.push({ index, value });
    });
    return settings.length === 0 ? INHERIT : { tag: "sparse", val: settings };
  }
}

const INHERIT = { tag: "inherit" };

/** The columns of all keys or edits; none, if nothing was set. Indices are a list, or a number that stands for all below. */
export function lowered(columns, indices) {
  if (columns === undefined || indices === 0) return [];
  if (columns.every((column) => column.indices.length === 0)) return [];
  return columns.map((column) => column.lower(indices));
}
