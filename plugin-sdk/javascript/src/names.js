// Names that the plugin gave to fields, outputs and others, and the places that they stand for.

import { named } from "./json.js";

/** The places of names, from `first` on. */
export function places(names, first = 0) {
  return new Map(names.map((name, place) => [name, place + first]));
}

/** The place of a name. Throws where it was not declared, and says what was. */
export function place(of, name, what) {
  const found = of.get(name);
  if (found !== undefined) return found;
  const known = [...of.keys()];
  const guess = nearest(String(name), known);
  const hint = guess === undefined ? "" : `, did you mean "${guess}"?`;
  const all = known.length === 0 ? "none is" : known.map((one) => `"${one}"`).join(", ");
  throw new TypeError(`"${name}" is not declared in ${what}${hint} (declared: ${all})`);
}

/**
 * Throws where a plugin has something that is nearly one of these, or a `config`, which stands before the function that makes
 * a plugin of it. Other names are the plugin's own; those of an instance of a class are not looked at.
 */
export function refuseMisspelt(given, known, what) {
  if (typeof given !== "object" || given === null) throw new TypeError(`${what} is an object, and not ${named(given)}`);
  if (Object.getPrototypeOf(given) !== Object.prototype) return;
  for (const name of Object.keys(given)) {
    if (!known.includes(name) && (name === "config" || nearest(name, known) !== undefined)) refuse(name, known, what);
  }
}

/** Throws where what stands before the function that makes a plugin is no table with a configuration. */
export function refuseUnread(given, make) {
  if (typeof make !== "function") throw new TypeError("what makes the plugin of its configuration is no function");
  const what = "what stands before (config, facts) => plugin";
  refuseMisspelt(given, ["config"], what);
  const unread = Object.keys(given).find((name) => name !== "config");
  if (unread !== undefined) refuse(unread, ["config"], what);
}

function refuse(name, known, what) {
  const guess = nearest(name, known);
  const hint = guess === undefined ? "" : `, did you mean "${guess}"?`;
  throw new TypeError(`"${name}" is not known of ${what}${hint} (known: ${known.map((one) => `"${one}"`).join(", ")})`);
}

/** The known name that was probably meant. */
export function nearest(name, known) {
  const most = Math.max(1, Math.floor(name.length / 3));
  const near = known.map((other) => [distance(name, other), other]).filter(([far]) => far <= most);
  near.sort(([one], [other]) => one - other);
  return near[0]?.[1];
}

/** How many letters differ, are missing or are too many. */
function distance(one, other) {
  let row = Array.from({ length: other.length + 1 }, (_, n) => n);
  for (let i = 0; i < one.length; i++) {
    const next = [i + 1];
    for (let j = 0; j < other.length; j++) {
      next.push(Math.min(row[j] + (one[i] === other[j] ? 0 : 1), row[j + 1] + 1, next[j] + 1));
    }
    row = next;
  }
  return row[other.length];
}
