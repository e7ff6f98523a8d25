import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { Part, json, sessions, sliding, transform, tumbling } from "tidemill-plugin";
import { Harness, host } from "tidemill-plugin/testing";
import { Snapshot } from "../src/snapshot.js";

beforeEach(() => host.reset());

const sum = { initial: () => 0, add: (total, value) => total + value, merge: (one, other) => one + other };
const shown = (closed) =>
  closed.map(({ key, start, end, value, final }) => `${key} ${start}..${end} ${value}${final ? "" : " open"}`);

test("tumbling windows are half-open, aligned to the epoch, and closed by the time of their key", () => {
  const windows = tumbling({ ...sum, size: "10ms" });
  assert.deepEqual(windows.add("a", 10, 1), []);
  assert.deepEqual(windows.add("a", 19.9, 2), []);
  assert.deepEqual(windows.add("b", 25, 5), []);
  assert.deepEqual(shown(windows.add("a", 20, 4)), ["a 10..20 3"]);
  assert.deepEqual(windows.add("a", -1, 9), []);
  assert.equal(windows.late, 1);
  assert.deepEqual(shown(windows.closeAll()), ["a 20..30 4 open", "b 20..30 5 open"]);
  assert.deepEqual(windows.closeAll(), []);
});

test("a value of the window that is open makes its key the one that was heard of last", () => {
  const windows = tumbling({ ...sum, size: 10, maxKeys: 2 });
  windows.add("a", 1, 1);
  windows.add("b", 1, 2);
  windows.add("a", 2, 4);
  assert.deepEqual(shown(windows.add("c", 1, 8)), ["b 0..10 2 open"]);
  assert.deepEqual(shown(windows.closeAll()), ["a 0..10 5 open", "c 0..10 8 open"]);
});

test("a value that cannot be added costs its message alone", () => {
  const refusing = {
    initial: () => 0,
    add(total, value) {
      if (value < 0) throw new Error("negative");
      return total + value;
    },
  };
  const options = { ...refusing, merge: sum.merge, maxKeys: 1, idleClose: 1 };
  for (const windows of [
    tumbling({ ...options, size: 10 }),
    sliding({ ...options, size: 10, slide: 5 }),
    sessions({ ...options, gap: 10 }),
  ]) {
    windows.add("a", 6, 1);
    const before = windows.snapshot();
    // In the same window, where others are closed by time or silence, and of a key that would make room.
    for (const [key, time, receivedUs] of [["a", 7, 0], ["a", 100, 0], ["a", 100, 5_000], ["b", 7, 0]]) {
      assert.throws(() => windows.add(key, time, -1, receivedUs), /negative/);
      assert.deepEqual(windows.snapshot(), before);
    }
    windows.add("a", 8, 2);
    assert.ok(shown(windows.closeAll()).every((window) => / 3 open$/.test(window)));
  }
});

test("windows before the epoch are aligned, too", () => {
  const windows = tumbling({ ...sum, size: 10 });
  windows.add("a", -1, 1);
  assert.deepEqual(shown(windows.closeAll()), ["a -10..0 1 open"]);
});

test("with lateness, windows wait for what comes late", () => {
  const windows = tumbling({ ...sum, size: 10, allowedLateness: 5 });
  windows.add("a", 9, 1);
  assert.deepEqual(windows.add("a", 14, 2), []);
  windows.add("a", 3, 4);
  assert.deepEqual(shown(windows.add("a", 15, 8)), ["a 0..10 5"]);
  windows.add("a", 9, 16);
  assert.deepEqual([windows.late, shown(windows.closeAll())], [1, ["a 10..20 10 open"]]);
});

test("sliding windows each count a value that lies in them", () => {
  const windows = sliding({ ...sum, size: 10, slide: 5 });
  windows.add("a", 7, 1);
  assert.deepEqual(shown(windows.add("a", 12, 2)), ["a 0..10 1"]);
  // Too late for the one, in time for the other.
  windows.add("a", 8, 4);
  assert.equal(windows.late, 0);
  assert.deepEqual(shown(windows.add("a", 20, 8)), ["a 5..15 7", "a 10..20 2"]);
  windows.add("a", 9, 1);
  assert.equal(windows.late, 1);
  assert.deepEqual(shown(windows.closeAll()), ["a 15..25 8 open", "a 20..30 8 open"]);
  assert.throws(() => sliding({ ...sum, size: 5, slide: 10 }), /slide is longer than size/);
});

test("sessions last until there is a gap, and grow together", () => {
  const windows = sessions({ ...sum, gap: 10, allowedLateness: 30 });
  windows.add("a", 0, 1);
  windows.add("a", 5, 2);
  windows.add("a", 20, 4);
  windows.add("a", 38, 8);
  assert.deepEqual(shown(windows.closeAll()), ["a 0..15 3 open", "a 20..30 4 open", "a 38..48 8 open"]);
  windows.add("b", 0, 1);
  windows.add("b", 16, 2);
  windows.add("b", 8, 4);
  assert.deepEqual(shown(windows.add("b", 56, 8)), ["b 0..26 7"]);
  windows.add("b", 25, 1);
  assert.equal(windows.late, 1);
  windows.add("c", 10, 1);
  windows.add("c", 5, 1);
  assert.deepEqual(shown(windows.closeAll()), ["b 56..66 8 open", "c 5..20 2 open"]);
  assert.throws(() => sessions({ initial: () => 0, add: () => 0, gap: 1 }), /sessions need merge/);
});

test("the end of a session is not part of it", () => {
  const windows = sessions({ ...sum, gap: 10 });
  windows.add("a", 0, 1);
  assert.deepEqual(shown(windows.add("a", 10, 2)), ["a 0..10 1"]);
});

test("a key that is silent is closed, by the timer and by its next message", () => {
  const windows = tumbling({ ...sum, size: 10, idleClose: "1s" });
  windows.add("a", 1, 1, 0);
  windows.add("b", 1, 1, 500_000);
  assert.deepEqual(windows.closeIdle(999_999), []);
  assert.deepEqual(shown(windows.closeIdle(1_000_000)), ["a 0..10 1"]);
  assert.deepEqual(windows.closeIdle(1_000_000), []);
  // What comes for a closed window is late, all the same.
  windows.add("a", 2, 1, 1_100_000);
  assert.equal(windows.late, 1);
  assert.deepEqual(shown(windows.add("b", 3, 1, 1_500_000)), ["b 0..10 1"]);
});

test("the key that was silent longest makes room for a new one", () => {
  const windows = tumbling({ ...sum, size: 10, maxKeys: 2, idleClose: 1 });
  windows.add("a", 1, 1, 0);
  windows.add("b", 1, 2, 0);
  windows.add("a", 2, 4, 0);
  assert.deepEqual(shown(windows.add("c", 1, 8, 0)), ["b 0..10 2 open"]);
  windows.closeIdle(1_000_000);
  windows.add("c", 21, 8, 1_000_000);
  assert.deepEqual(shown(windows.add("d", 1, 8, 1_000_000)), []);
  assert.deepEqual([windows.size, windows.forgotten], [2, 2]);
});

test("a key that the timer closed makes room before one that was heard of later and has no windows", () => {
  const windows = tumbling({ ...sum, size: 10, maxKeys: 2, idleClose: "200ms" });
  const add = (key, time, receivedMs) => shown(windows.add(key, time, 1, 1000 * receivedMs));
  const tick = (nowMs) => shown(windows.closeIdle(1000 * nowMs));
  add("z", 1, 0);
  assert.deepEqual(tick(200), ["z 0..10 1"]);
  add("a", 1, 300);
  add("z", 2, 350);
  assert.equal(windows.late, 1);
  assert.deepEqual(tick(550), ["a 0..10 1"]);
  // A snapshot has the same order.
  const restored = tumbling({ ...sum, size: 10, maxKeys: 2, idleClose: "200ms" });
  restored.restore(json.decode(json.encode(windows.snapshot())));
  for (const now of [windows, restored]) {
    assert.deepEqual(now.add("b", 1, 1, 600_000), []);
    assert.deepEqual(now.add("z", 3, 1, 650_000), []);
    assert.deepEqual([now.late, shown(now.closeAll())], [now === windows ? 2 : 1, ["b 0..10 1 open"]]);
    assert.equal(now.forgotten, 1);
  }
});

test("keys that the timer closes come in the order in which they were heard of", () => {
  const windows = tumbling({ ...sum, size: 10, idleClose: 1 });
  for (const key of ["a", "b", "a"]) windows.add(key, 1, 1, 0);
  assert.deepEqual(shown(windows.closeIdle(1_000)), ["b 0..10 1", "a 0..10 2"]);
});

test("at the end as many windows are sent as one call takes, and the others are counted", () => {
  const ending = (text, metadata, facts) => {
    host.reset();
    const windows = tumbling({ ...sum, size: 10 });
    const plugin = transform({
      writes: ["mark", "other"],
      process: (message) => void windows.add(message.text, 1, 1),
      finish(out) {
        out.emit("first");
        windows.closeAll(out, ({ key }) => {
          out.emit(`${text}${key}`, { metadata });
          out.emit("");
        });
      },
    });
    const harness = new Harness(plugin, {}, facts);
    harness.process(["d", "b", "a", "c"]);
    return harness.finish().map((sent) => sent.text);
  };
  // Of each the host counts 192 bytes beside its payload, with metadata 64 more, and 64 for each value beside its bytes.
  const first = 192 + 5;
  const two = 2 * 192 + 4;
  const limited = (output_bytes, memory_bytes = 1 << 20) => ({ output_bytes: `${output_bytes}`, memory_bytes: `${memory_bytes}` });
  assert.deepEqual(ending("abc", {}, limited(first + 4 * two)), ["first", "abca", "", "abcb", "", "abcc", "", "abcd", ""]);
  assert.deepEqual([host.counters.size, host.lines], [0, []]);
  assert.deepEqual(ending("abc", {}, limited(first + 4 * two - 1)), ["first", "abca", "", "abcb", "", "abcc", ""]);
  assert.equal(host.counters.get("windows_unsent"), 1);
  assert.deepEqual(host.lines, [
    [
      "warn",
      "1 open windows are not sent, for which one call has no room: let `limits.output` be larger, and `limits.memory` four times as large as that at least",
    ],
  ]);
  // A quarter of the memory is a bound as well, and a text counts by its bytes.
  assert.deepEqual(ending("ż", {}, limited(1 << 20, 4 * (first + two))), ["first", "ża", ""]);
  assert.equal(host.counters.get("windows_unsent"), 3);
  const marked = first + 64 + 4 * (two + 2 * 64 + 2 * (64 + 2));
  assert.equal(ending("abc", { mark: "ż", other: "ab" }, limited(marked)).length, 9);
  assert.equal(ending("abc", { mark: "ż", other: "ab" }, limited(marked - 1)).length, 7);
  assert.throws(() => tumbling({ ...sum, size: 10 }).closeAll({}), { message: "closeAll takes out, and write(window)" });
  // Without facts there are the limits that there are by default.
  assert.equal(ending("abc", {}, {}).length, 9);
});

test("windows go on from a snapshot, or from their share of several", () => {
  const make = () => tumbling({ ...sum, size: 10 });
  const old = [make(), make()];
  ["a", "b", "c", "d"].forEach((key, n) => old[n % 2].add(key, 11, n + 0.1));
  old[0].add("a", 25, 1);
  const fresh = make();
  const bytes = old.map((windows) => new Snapshot(json.encode(windows.snapshot())));
  fresh.restore(bytes[0].json());
  fresh.add("a", 12, 1);
  assert.equal(fresh.late, 1);
  assert.deepEqual(shown(fresh.closeAll()), ["a 20..30 1 open", "c 10..20 2.1 open"]);
  const shares = [0, 1, 2].map((number) => {
    const windows = make();
    windows.restorePart(bytes, new Part(number, 3));
    return shown(windows.closeAll());
  });
  assert.deepEqual(shares.flat().sort(), ["a 20..30 1 open", "b 10..20 1.1 open", "c 10..20 2.1 open", "d 10..20 3.1 open"]);
  assert.throws(() => fresh.restore({}), /not that of windows/);
});

test("state of other windows is refused and says what has changed", () => {
  const minute = tumbling({ ...sum, size: "1m" });
  const sliding10 = sliding({ ...sum, size: "1m", slide: "10s" });
  for (const [before, now, state, configuration] of [
    [minute, tumbling({ ...sum, size: 1500 }), "tumbling windows with `size` 60s", "tumbling windows with `size` 1.5s"],
    [minute, sliding10, "tumbling windows with `size` 60s", "sliding windows with `size` 60s and `slide` 10s"],
    [
      sliding10,
      sliding({ ...sum, size: "1m", slide: "20s" }),
      "sliding windows with `size` 60s and `slide` 10s",
      "sliding windows with `size` 60s and `slide` 20s",
    ],
    [sessions({ ...sum, gap: "10s" }), sessions({ ...sum, gap: 250 }), "sessions with `gap` 10s", "sessions with `gap` 250ms"],
    [
      tumbling({ ...sum, size: "1m", meaning: "counts" }),
      tumbling({ ...sum, size: "1m", meaning: "sums" }),
      "windows of counts",
      "sums",
    ],
  ]) {
    before.add("a", 1, 1);
    now.add("b", 1, 1);
    const message = `the state has ${state}, and the configuration says ${configuration}; a transform of another \`name\` begins without state`;
    assert.throws(() => now.restore(json.decode(json.encode(before.snapshot()))), { message });
    assert.ok(now.closeAll().every(({ key }) => key === "b"));
  }
  // What closes windows is no part of what they are.
  tumbling({ ...sum, size: "60s", allowedLateness: "1s", maxKeys: 7 }).restore(minute.snapshot());
});

test("totals may be objects that are added to in place", () => {
  const windows = tumbling({ size: 10, initial: () => ({ count: 0 }), add: (total) => void total.count++ });
  windows.add("a", 1);
  windows.add("a", 2);
  assert.deepEqual(windows.closeAll()[0].value, { count: 2 });
});

test("what makes no windows is refused", () => {
  assert.throws(() => tumbling({ ...sum, size: "1 m" }), /size is "1 m", and must be a duration/);
  assert.throws(() => tumbling({ ...sum }), /size is nothing/);
  assert.throws(() => tumbling({ size: 1 }), /windows need initial\(\) and add/);
  assert.throws(() => tumbling({ ...sum, size: 1, maxKeys: 0 }), /maxKeys is 0/);
  assert.throws(() => tumbling({ ...sum, size: 1 }).add("a", NaN, 1), /out of range/);
});
