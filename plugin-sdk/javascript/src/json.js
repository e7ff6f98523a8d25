// JSON as bytes, and without the losses that JSON.stringify is silent about.

import { decode as text, encode as bytes } from "./utf8.js";

/** A value as bytes of JSON. Throws where JSON would lose something of it. */
export function encode(value) {
  const json = JSON.stringify(value, lossless);
  if (json === undefined) throw new TypeError(`${named(value)} is no JSON`);
  return bytes(json);
}

/** The value that bytes of JSON hold. */
export function decode(json) {
  return JSON.parse(text(json));
}

function lossless(key, value) {
  const original = this[key];
  const where = key === "" ? "the value" : `"${key}"`;
  if (original instanceof Map) throw new TypeError(`${where} is a Map, which JSON loses: use Object.fromEntries`);
  if (original instanceof Set) throw new TypeError(`${where} is a Set, which JSON loses: use Array.from`);
  if (typeof value === "bigint") throw new TypeError(`${where} is a BigInt, which JSON does not have: use String`);
  if (typeof value === "number" && !Number.isFinite(value)) {
    throw new TypeError(`${where} is ${value}, which JSON does not have`);
  }
  return value;
}

/** What kind of value it is, for an error. */
export function named(value) {
  if (value === null) return "null";
  if (Array.isArray(value)) return "a list";
  if (typeof value === "object") return "an object";
  if (typeof value === "string") return JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}…` : value);
  return typeof value === "undefined" ? "nothing" : String(value);
}
