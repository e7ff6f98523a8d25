// Durations in configurations, as the host writes its own: "250ms", "1.5s", "1m30s", "1d".

/** Units of time, in nanoseconds. */
const UNITS = new Map([
  ["d", 86_400_000_000_000n],
  ["h", 3_600_000_000_000n],
  ["m", 60_000_000_000n],
  ["s", 1_000_000_000n],
  ["ms", 1_000_000n],
  ["us", 1_000n],
  ["ns", 1n],
]);
/** Most digits behind the point: more than any unit has places. */
const MOST_PLACES = 18;
/** The host's largest duration. */
const MOST_NANOSECONDS = 2n ** 64n - 1n;

/** The nanoseconds of a duration; undefined where it is none. */
export function nanoseconds(text) {
  if (!/^([0-9]+(\.[0-9]+)?[a-z]+)+$/.test(text)) return undefined;
  let total = 0n;
  let smallest = MOST_NANOSECONDS;
  for (const [, whole, , places = "", unit] of text.matchAll(/([0-9]+)(\.([0-9]+))?([a-z]+)/g)) {
    const size = UNITS.get(unit);
    if (size === undefined || size >= smallest || places.length > MOST_PLACES) return undefined;
    smallest = size;
    const scale = 10n ** BigInt(places.length);
    const product = BigInt(whole + places) * size;
    if (product % scale !== 0n) return undefined;
    total += product / scale;
  }
  return total <= MOST_NANOSECONDS ? total : undefined;
}

/** Milliseconds as they cross, in 32 bits; what is below 0 is 0. */
export const wholeMs = (ms) => Math.min(Math.max(Math.ceil(ms), 0), 0xffffffff);

/** The milliseconds of a duration such as "1m30s"; undefined where it is none. */
export function milliseconds(text) {
  const total = nanoseconds(text);
  return total === undefined ? undefined : Number(total) / 1e6;
}
