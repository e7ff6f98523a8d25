// Values that the host keeps for the transform: they outlive the instance, its faults and swaps.

import host from "#host/state";
import { refusalOf } from "./refusal.js";
import { encode, wellFormed } from "./utf8.js";

const keyOf = (key) => wellFormed(String(key));

/** Bytes as they are, and a text as UTF-8. */
function bytes(value) {
  if (typeof value === "string") return encode(value);
  if (value instanceof Uint8Array) return value;
  throw new TypeError(`a value of the state is a text or bytes, and not ${typeof value}: json.encode makes bytes of it`);
}

const made = (value) => (value === null ? undefined : value instanceof Uint8Array ? value : Uint8Array.from(value));

/** What the host refuses, as an error. */
function limited(call) {
  try {
    call();
  } catch (error) {
    const limit = refusalOf(error);
    throw typeof limit === "string" ? new Error(limit) : error;
  }
}

/** The value of a key, as bytes; undefined if it has none. */
export const get = (key) => made(host.get(keyOf(key)));
/** The value of each key. */
export const getMany = (keys) => (keys.length === 0 ? [] : host.getMany(keys.map(keyOf)).map(made));
/** Gives a key a value, until it is changed or for `ttlMs` milliseconds. */
export function set(key, value, { ttlMs } = {}) {
  if (ttlMs === undefined) limited(() => host.set(keyOf(key), bytes(value)));
  else setMany([{ key, value, ttlMs }]);
}
/** Makes all changes `{ key, value, ttlMs }`, in their order, or none. Without a value the key is removed. */
export function setMany(changes) {
  if (changes.length === 0) return;
  const lowered = changes.map(({ key, value, ttlMs }) => ({
    key: keyOf(key),
    value: value === undefined || value === null ? null : bytes(value),
    ttlMs: ttlMs === undefined ? 0 : Math.max(1, Math.floor(ttlMs)),
  }));
  limited(() => host.setMany(lowered));
}
/** Removes a key. */
export const remove = (key) => host.delete(keyOf(key));
/** The keys that start with `prefix` and come after `after`, ascending, at most `limit`. */
export const keys = (prefix = "", { after = null, limit = 0xffffffff } = {}) => host.keys(prefix, after, limit);
