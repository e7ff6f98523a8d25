// Which line of which file each line of a bundle comes from, read from its source map.

const DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/**
 * The files of a source map that `isOwn` says are the plugin's, and for each line of the bundle the file and the line
 * that it comes from: `[file, line]`, or 0 where that is none of the plugin's.
 */
export function originsOf({ sources, mappings }, isOwn) {
  const files = sources.filter(isOwn);
  const places = sources.map((source) => files.indexOf(source));
  let [source, line] = [0, 0];
  const lines = mappings.split(";").map((segments) => {
    let origin = 0;
    for (const segment of segments.split(",").filter((text) => text !== "")) {
      const [, sourceStep, lineStep] = numbers(segment);
      if (sourceStep === undefined) continue;
      source += sourceStep;
      line += lineStep;
      if (origin === 0 && places[source] >= 0) origin = [places[source], line + 1];
    }
    return origin;
  });
  return { files, lines };
}

/**
 * What a plugin's own module threw while a component was made of it, with the place in its files, by what componentize-qjs
 * says of that; undefined if that says something else.
 */
export function thrownIn(said, { files, lines }) {
  const [, thrown] = /Failed to evaluate user JavaScript module:.*?evaluation: (?:Error: )?(.*)/.exec(said) ?? [];
  if (thrown === undefined) return undefined;
  const own = [...said.matchAll(/:user\.js:(\d+)/g)].map(([, line]) => lines[line - 1]).find(Boolean);
  return own === undefined ? thrown : `${files[own[0]]}:${own[1]}: ${thrown}`;
}

/** The numbers of a segment, in base 64 with the sign in the lowest bit. */
function numbers(segment) {
  const found = [];
  let [value, shift] = [0, 0];
  for (const char of segment) {
    const digit = DIGITS.indexOf(char);
    value += (digit & 31) << shift;
    shift += 5;
    if (digit & 32) continue;
    found.push(value & 1 ? -(value >> 1) : value >> 1);
    [value, shift] = [0, 0];
  }
  return found;
}
