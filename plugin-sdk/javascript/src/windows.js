// Windows in event time, of each key: tumbling, sliding, sessions. They are half-open and exist from their first value
// on; those of a size are aligned to the epoch. Nothing here knows messages or JSON.

import { milliseconds } from "./duration.js";
import { named } from "./json.js";
import * as log from "./log.js";
import * as metrics from "./metrics.js";

/** Times lie this close to the epoch, in milliseconds: exact as a number. */
const MOST_MS = Number.MAX_SAFE_INTEGER;
const MOST_KEYS = 100_000;
/** The counter of open windows that were not sent at the end. */
const UNSENT = "windows_unsent";

/** Windows of one size, one after the other. */
export const tumbling = (options) => new Windows(options, new Sized(span("size", options.size)));

/** Windows of one size, of which one begins every `slide`: a value counts in several. */
export const sliding = (options) =>
  new Windows(options, new Sized(span("size", options.size), span("slide", options.slide)));

/** Windows that last as long as no `gap` is between two values: `[first, last + gap)`. */
export const sessions = (options) => {
  if (typeof options.merge !== "function") {
    throw new TypeError("sessions need merge(one, other): a late value may join two of them");
  }
  return new Windows(options, new Gapped(span("gap", options.gap), options.merge));
};

/** The windows of all keys. */
class Windows {
  #kind;
  #meaning;
  #initial;
  #add;
  #latenessMs;
  #idleCloseUs;
  #maxKeys;
  /** All keys by when they were heard of, the longest ago first. */
  #known = new Map();
  /** Those of them that have open windows, in any order. */
  #active = new Map();
  #turn = 0;

  constructor(options, kind) {
    const { initial, add, meaning = "", allowedLateness = 0, idleClose = 0, maxKeys = MOST_KEYS } = options;
    if (typeof initial !== "function" || typeof add !== "function") {
      throw new TypeError("windows need initial() and add(total, value)");
    }
    if (!(maxKeys >= 1)) throw new TypeError(`maxKeys is ${named(maxKeys)}, and must be a number from 1 on`);
    this.#kind = kind;
    this.#meaning = String(meaning);
    this.#initial = initial;
    this.#add = add;
    this.#latenessMs = span("allowedLateness", allowedLateness, 0);
    this.#idleCloseUs = 1000 * span("idleClose", idleClose, 0);
    this.#maxKeys = maxKeys;
    /** How many values came too late to count. */
    this.late = 0;
    /** How many keys were forgotten because there were too many. */
    this.forgotten = 0;
  }

  /** How many keys are known. */
  get size() {
    return this.#known.size;
  }

  /**
   * Counts a value of a key at a time, in milliseconds, and gives the windows that are closed now: `{ key, start, end,
   * value, final }`. With `idleClose` it also takes when the message was received, in microseconds. Where `add` throws,
   * nothing has changed.
   */
  add(key, timeMs, value, receivedUs = 0) {
    if (!(Math.abs(timeMs) <= MOST_MS)) throw new RangeError(`the time ${timeMs} is out of range`);
    if (this.#joinsOnly(key, timeMs, value, receivedUs)) return [];
    const closed = [];
    const known = this.#known.get(key);
    // A copy, which takes its place once the value is added.
    const series = { open: known?.open.slice() ?? [], closedUntil: known?.closedUntil ?? -Infinity, receivedUs, turn: 0 };
    if (this.#idleCloseUs > 0 && series.open.length > 0 && receivedUs - known.receivedUs >= this.#idleCloseUs) {
      this.#close(key, series, () => true, closed);
    }
    const time = Math.floor(timeMs);
    const places = this.#kind.places(time, series);
    if (places.length === 0) {
      this.late++;
    } else {
      this.#close(key, series, (window) => time >= window.end + this.#latenessMs, closed);
      const windows = places.map(([start, end]) => this.#kind.window(series.open, start, end, this.#initial));
      const totals = windows.map((window) => this.#add(window.value, value));
      totals.forEach((total, n) => {
        if (total !== undefined) windows[n].value = total;
      });
    }
    this.#hear(key, series, known === undefined, closed);
    return closed;
  }

  /** Closes the windows of keys of which nothing came for `idleClose`; for `tick`. */
  closeIdle(nowUs) {
    const closed = [];
    if (this.#idleCloseUs === 0) return closed;
    const silent = [];
    for (const entry of this.#active) if (nowUs - entry[1].receivedUs >= this.#idleCloseUs) silent.push(entry);
    // A key that is closed keeps its place among those that may have to make room: it was not heard of.
    for (const [key, series] of silent.sort(([, one], [, other]) => one.turn - other.turn)) {
      this.#close(key, series, () => true, closed);
      this.#active.delete(key);
    }
    return closed;
  }

  /**
   * Closes all windows, which are not final, by key and time; for `finish`. With the way out of `finish`, and a function
   * that emits a window there, those for which the call has no room any more are not sent, which the log says, and the
   * metric `windows_unsent` counts.
   */
  closeAll(out, write) {
    if (out !== undefined && typeof write !== "function") throw new TypeError("closeAll takes out, and write(window)");
    const closed = [];
    for (const key of [...this.#active.keys()].sort()) {
      for (const { start, end, value } of this.#active.get(key).open) closed.push({ key, start, end, value, final: false });
      this.#known.delete(key);
    }
    this.#active.clear();
    if (out !== undefined) sendWhatFits(closed, out, write);
    return closed;
  }

  /** The state, as JSON has it. */
  snapshot() {
    const series = Array.from(this.#known, ([key, { open, closedUntil, receivedUs, turn }]) => [
      key,
      open.map(({ start, end, value }) => [start, end, value]),
      closedUntil === -Infinity ? null : closedUntil,
      receivedUs,
      turn,
    ]);
    return { windows: `${this.#kind}`, meaning: this.#meaning, late: this.late, forgotten: this.forgotten, series };
  }

  /** Goes on from the state of this or another instance. Throws where it is that of other windows. */
  restore(state) {
    this.#restore([state], () => true);
  }

  /** Goes on from the snapshots of all instances there were, with the keys that belong to this part. */
  restorePart(snapshots, part) {
    this.#restore(snapshots.map((snapshot) => snapshot.json()), (key) => part.has(key));
  }

  #restore(states, isKept) {
    for (const state of states) this.#check(state);
    this.#known.clear();
    this.#active.clear();
    const all = states.flatMap((state) => state.series.filter(([key]) => isKept(key)));
    all.sort((one, other) => one[4] - other[4]);
    for (const [key, open, closedUntil, receivedUs, turn] of all) {
      const windows = open.map(([start, end, value]) => ({ start, end, value }));
      const series = { open: windows, closedUntil: closedUntil ?? -Infinity, receivedUs, turn };
      this.#place(key, series);
      this.#turn = Math.max(this.#turn, turn);
    }
  }

  /** Throws where a state is none of these windows. */
  #check(state) {
    const { windows, meaning, series } = state ?? {};
    if (!Array.isArray(series) || windows === undefined) throw new Error("the state is not that of windows");
    if (windows !== `${this.#kind}`) throw changed(windows, this.#kind);
    if (meaning !== this.#meaning) throw changed(`windows of ${meaning}`, this.#meaning);
  }

  /** What happens most often, in few steps: a value of the one window that is open of its key. Says whether it was one. */
  #joinsOnly(key, timeMs, value, receivedUs) {
    const series = this.#kind.isApart ? this.#active.get(key) : undefined;
    if (series === undefined || series.open.length !== 1) return false;
    const window = series.open[0];
    if (!(window.start <= timeMs && timeMs < window.end)) return false;
    if (this.#idleCloseUs > 0 && receivedUs - series.receivedUs >= this.#idleCloseUs) return false;
    const total = this.#add(window.value, value);
    if (total !== undefined) window.value = total;
    if (series.turn !== this.#turn) {
      // It is heard of last now.
      this.#known.delete(key);
      this.#known.set(key, series);
      series.turn = ++this.#turn;
    }
    series.receivedUs = receivedUs;
    return true;
  }

  /** Puts a key behind all others; of a new one makes room first. */
  #hear(key, series, isNew, closed) {
    if (isNew) {
      while (this.size >= this.#maxKeys) this.#forget(closed);
    } else {
      this.#known.delete(key);
    }
    series.turn = ++this.#turn;
    this.#place(key, series);
  }

  #place(key, series) {
    this.#known.set(key, series);
    if (series.open.length > 0) this.#active.set(key, series);
    else this.#active.delete(key);
  }

  /** Forgets the key that was silent longest; its windows are closed before their time. */
  #forget(closed) {
    const [[key, { open }]] = this.#known;
    for (const { start, end, value } of open) closed.push({ key, start, end, value, final: false });
    this.#known.delete(key);
    this.#active.delete(key);
    this.forgotten++;
  }

  #close(key, series, closes, closed) {
    const open = [];
    for (const window of series.open) {
      if (!closes(window)) {
        open.push(window);
        continue;
      }
      const { start, end, value } = window;
      series.closedUntil = Math.max(series.closedUntil, end);
      closed.push({ key, start, end, value, final: true });
    }
    series.open = open;
  }
}

/** Emits windows as long as one call takes them. */
function sendWhatFits(closed, out, write) {
  const sent = closed.findIndex((window) => !out.emitIfItFits(() => write(window)));
  if (sent < 0) return;
  const unsent = closed.length - sent;
  metrics.add(UNSENT, unsent);
  log.warn(
    `${unsent} open windows are not sent, for which one call has no room: let \`limits.output\` be larger, and ` +
      "`limits.memory` four times as large as that at least",
  );
}

/** Windows of a size, of which one begins every so often. */
class Sized {
  constructor(size, slide = size) {
    if (slide > size) throw new TypeError("slide is longer than size: some values would count nowhere");
    this.size = size;
    this.slide = slide;
    /** Whether a time is in one window alone. */
    this.isApart = slide === size;
  }

  toString() {
    const size = `\`size\` ${shown(this.size)}`;
    return this.isApart ? `tumbling windows with ${size}` : `sliding windows with ${size} and \`slide\` ${shown(this.slide)}`;
  }

  /** The windows of a time that are not closed yet, as `[start, end]`. */
  places(time, { closedUntil }) {
    const places = [];
    for (let start = Math.floor(time / this.slide) * this.slide; start > time - this.size; start -= this.slide) {
      if (start + this.size > closedUntil) places.unshift([start, start + this.size]);
    }
    return places;
  }

  window(open, start, end, initial) {
    let place = open.length;
    while (place > 0 && open[place - 1].start > start) place--;
    if (place > 0 && open[place - 1].start === start && open[place - 1].end === end) return open[place - 1];
    const window = { start, end, value: initial() };
    open.splice(place, 0, window);
    return window;
  }
}

/** Sessions. */
class Gapped {
  /** A value makes its session longer. */
  isApart = false;

  constructor(gap, merge) {
    this.gap = gap;
    this.merge = merge;
  }

  toString() {
    return `sessions with \`gap\` ${shown(this.gap)}`;
  }

  places(time, { closedUntil }) {
    return time >= closedUntil ? [[time, time + this.gap]] : [];
  }

  /** The session that this one joins, in the place of it, or of several that are one from now on. */
  window(open, start, end, initial) {
    const joined = open.filter((window) => window.start < end && start < window.end);
    const place = open.findIndex((window) => window.end > start);
    const window = { start, end, value: undefined };
    for (const other of joined) {
      window.start = Math.min(window.start, other.start);
      window.end = Math.max(window.end, other.end);
    }
    const values = joined.map((other) => other.value);
    window.value = values.length === 0 ? initial() : values.reduce((one, other) => this.merge(one, other));
    open.splice(place < 0 ? open.length : place, joined.length, window);
    return window;
  }
}

/** What the state has and what the configuration says now. */
function changed(state, configuration) {
  return new Error(
    `the state has ${state}, and the configuration says ${configuration}; a transform of another \`name\` begins without state`,
  );
}

/** A time as it is told: 1500 as 1.5s. */
const shown = (ms) => (ms < 1000 ? `${ms}ms` : `${ms / 1000}s`);

/** A time in whole milliseconds, given as such or as a duration. */
function span(name, given, least = 1) {
  const ms = typeof given === "string" ? milliseconds(given) : given;
  if (!(Number.isFinite(ms) && ms >= least)) {
    throw new TypeError(`${name} is ${named(given)}, and must be a duration such as "1m", or milliseconds`);
  }
  return Math.floor(ms);
}
