// Configurations: what each key holds is said once, and what is wrong is told by key.

import { milliseconds } from "./duration.js";
import { named } from "./json.js";
import { nearest } from "./names.js";
import { pointerError } from "./field.js";

/** What is wrong with a configuration. Its text is for the person who wrote it. */
export class ConfigError extends Error {
  name = "ConfigError";
}

/** What a key holds: how it is read, what is expected, and what it is where it is not there. */
class Kind {
  constructor(expected, read, fallback) {
    this.expected = expected;
    this.read = read;
    this.fallback = fallback;
    this.isRequired = fallback === undefined;
  }
}

const no = Symbol("not what was expected");
const kind = (expected, read) => (fallback) => new Kind(expected, read, fallback);
const plain = (type) => (value) => (typeof value === type ? value : no);

/** Any text. */
export const text = kind("a text", plain("string"));
/** Any number. */
export const number = kind("a number", plain("number"));
/** A whole number of which JavaScript knows each digit. */
export const integer = kind("a whole number", (value) => (Number.isSafeInteger(value) ? value : no));
/** `true` or `false`. */
export const boolean = kind("true or false", plain("boolean"));
/** A duration such as "1m30s", in milliseconds; the fallback is written the same way. */
export const duration = (fallback) => {
  const read = (value) => (typeof value === "string" ? (milliseconds(value) ?? no) : no);
  const known = fallback === undefined ? undefined : read(fallback);
  if (known === no) throw new TypeError(`${named(fallback)} is not a duration`);
  return new Kind('a duration such as "250ms", "10s" or "1m30s"', read, known);
};
/** A JSON pointer such as "/data/0/p". */
export const pointer = kind('a JSON pointer such as "/data/p"', (value) =>
  typeof value === "string" && pointerError(value) === undefined ? value : no,
);
/** One of these texts. */
export const oneOf = (texts, fallback) => {
  const expected = texts.map((known) => JSON.stringify(known)).join(" or ");
  return new Kind(expected, (value) => (texts.includes(value) ? value : no), fallback);
};
/** A list, of which all values are of a kind. */
export const list = (of, fallback) =>
  new Kind(
    "a list",
    (value, path) => (Array.isArray(value) ? value.map((one, n) => read(of, one, `${path}[${n}]`)) : no),
    fallback,
  );
/** A table with any keys, of which all values are of a kind. */
export const table = (of, fallback) =>
  new Kind(
    "a table",
    (value, path) => {
      if (!isTable(value)) return no;
      return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, read(of, one, join(path, key))]));
    },
    fallback,
  );
/** A table with these keys. */
export const object = (keys, fallback) => new Kind("a table", (value, path) => entries(keys, value, path), fallback);
/** Something else of the plugin's own: `read` gives its value, or throws. */
export const custom = (expected, read, fallback) =>
  new Kind(
    expected,
    (value) => {
      try {
        return read(value);
      } catch {
        return no;
      }
    },
    fallback,
  );
/** What may be left out, and is undefined then. */
export const optional = (of) => Object.assign(new Kind(of.expected, of.read), { isRequired: false });

/** Reads the whole configuration. A plugin without keys refuses every key. */
export function readConfig(keys, json) {
  const config = JSON.parse(json);
  if (keys instanceof Kind) return read(keys, config, "config");
  const values = entries(keys ?? {}, config, "");
  if (values === no) throw new ConfigError(`the configuration is ${named(config)}, and must be a table`);
  return values;
}

function entries(keys, value, path) {
  if (!isTable(value)) return no;
  const known = Object.keys(keys);
  for (const key of Object.keys(value)) {
    if (!known.includes(key)) throw new ConfigError(unknown(join(path, key), key, known));
  }
  return Object.fromEntries(known.map((key) => [key, entry(keys[key], value[key], join(path, key))]));
}

function entry(of, value, path) {
  if (value !== undefined) return read(of, value, path);
  if (of.isRequired) throw new ConfigError(`${path} is missing, which is ${of.expected}`);
  return of.fallback;
}

function read(of, value, path) {
  const found = of.read(value, path);
  if (found === no) throw new ConfigError(`${path} is ${named(value)}, and must be ${of.expected}`);
  return found;
}

function unknown(path, key, known) {
  if (known.length === 0) return `${path} is not known: the plugin has no configuration`;
  const guess = nearest(key, known);
  const hint = guess === undefined ? "" : `, did you mean ${guess}?`;
  return `${path} is not known${hint} (the keys are ${known.join(", ")})`;
}

const isTable = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
const join = (path, key) => (path === "" ? key : `${path}.${key}`);
