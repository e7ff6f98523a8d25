import { fake } from "./fake.js";

/** The most bytes of a key. */
const MAX_KEY_BYTES = 1024;

const get = (key) => {
  const kept = fake.state.get(key);
  return kept && kept.until > fake.nowUs ? kept.value : null;
};

const setMany = (changes) => {
  for (const { key } of changes) {
    if (Buffer.byteLength(key) > MAX_KEY_BYTES) throw `a key has at most ${MAX_KEY_BYTES} bytes`;
  }
  for (const { key, value, ttlMs } of changes) {
    if (value === null) fake.state.delete(key);
    else fake.state.set(key, { value, until: ttlMs === 0 ? Infinity : fake.nowUs + 1000 * ttlMs });
  }
};

export default {
  get,
  getMany: (keys) => keys.map(get),
  set: (key, value) => setMany([{ key, value, ttlMs: 0 }]),
  setMany,
  delete: (key) => void fake.state.delete(key),
  keys: (prefix, after, limit) =>
    [...fake.state.keys()]
      .filter((key) => key.startsWith(prefix) && (after === null || key > after) && get(key) !== null)
      .sort()
      .slice(0, limit),
};
