// Names that the plugin gave to fields, outputs and others, and the places that they stand for.

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
