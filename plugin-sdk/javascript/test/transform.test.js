import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { beforeEach, test } from "node:test";
import { field, log, metrics, random, clock, state, transform, utf8 } from "tidemill-plugin";
import { Harness, host } from "tidemill-plugin/testing";
import { thrownIn } from "../src/build/sources.js";
import { placeOf } from "../src/host/component/places.js";
import { transformer as notional } from "./notional.js";

beforeEach(() => host.reset());

const texts = ({ sent }) => sent.map(({ text }) => text);
const harness = (plugin) => new Harness(transform(plugin));

test("the plugin of the README is the one that is tested", () => {
  const readme = readFileSync(new URL("../README.md", import.meta.url), "utf8");
  assert.ok(readme.includes(readFileSync(new URL("notional.js", import.meta.url), "utf8")));
});

test("fields come in and edits go out", () => {
  const plugin = new Harness(notional, { above: 2 });
  const messages = ['{"price":"2.5","qty":3}', '{"price":1,"qty":1}', "{}", "no JSON", '{"price":3}', '{"price":4,"qty":0.5}'];
  const outcome = plugin.process(messages);
  assert.deepEqual(texts(outcome), [
    '{"price":"2.5","qty":3,"notional":7.5}',
    '{"price":3,"notional":null}',
    '{"price":4,"qty":0.5,"notional":2}',
  ]);
  assert.deepEqual(outcome.rejected, [[3, "not JSON"]]);
});

test("a number is written as JavaScript writes it, unless its edit is declared as a number", () => {
  const plugin = transform({
    edits: { plain: "/a", double: field.number("/b") },
    process(message, out) {
      out.forward();
      out.set("plain", [2, 0.5, 10n, "two", { x: 1 }, undefined, NaN][message.index]);
      out.set("double", message.index === 6 ? Infinity : 2);
    },
  });
  const { edits } = decide(plugin, 7);
  assert.deepEqual(edits[0], { tag: "each", val: ["2", "0.5", "10", '"two"', '{"x":1}', null, "null"] });
  assert.deepEqual(edits[1].val, ["2.0", "2.0", "2.0", "2.0", "2.0", "2.0", "null"]);
  const numbers = decide(edit((out, index) => index !== 1 && out.set("x", index + 0.5)), 3);
  assert.deepEqual(numbers.edits, [{ tag: "numbers", val: [0.5, NaN, 2.5] }]);
  const none = decide(edit(() => {}), 3);
  assert.deepEqual(none.edits, []);
});

test("only what goes on is edited", () => {
  const plugin = edit((out, index) => out.set("x", index), (index) => index % 2 === 1);
  const { forward, edits } = decide(plugin, 5);
  assert.deepEqual(forward, { tag: "these", val: [1, 3] });
  assert.deepEqual(edits, [{ tag: "each", val: ["1", "3"] }]);
});

test("messages have fields, metadata, times and payloads", () => {
  const seen = [];
  const plugin = harness({
    reads: ["room"],
    times: true,
    fields: { n: field.number("/n"), s: field.text("/s"), j: field.json("/j") },
    process: (m) => void seen.push([m.n, m.s, m.j, m.raw("j"), m.metadata("room"), m.receivedUs, m.isText, m.text]),
  });
  plugin.process([
    { payload: '{"n":1,"s":"","j":{"a":[1]}}', metadata: { room: "7" }, receivedUs: 5 },
    Uint8Array.of(0xff),
  ]);
  assert.deepEqual(seen, [
    [1, "", { a: [1] }, '{"a":[1]}', "7", 5, true, '{"n":1,"s":"","j":{"a":[1]}}'],
    [undefined, undefined, undefined, undefined, "", 0, false, undefined],
  ]);
});

test("emissions have outputs and metadata of their own", () => {
  const plugin = harness({
    outputs: ["side"],
    writes: ["mark", "other"],
    process(message, out) {
      out.forward();
      out.emit({ n: message.index }, { output: "side", metadata: message.index === 0 ? { mark: "" } : { mark: "m" } });
      out.emit(Uint8Array.of(1, 2));
      out.emit("\ud800");
      out.setMetadata("other", "same");
    },
  });
  const { sent } = plugin.process([{ payload: "a", metadata: { mark: "old" } }, "b"]);
  assert.deepEqual(
    sent.map(({ text, bytes, output, metadata }) => [text ?? [...bytes], output, metadata]),
    [
      ["a", "default", { mark: "old", other: "same" }],
      ['{"n":0}', "side", {}],
      [[1, 2], "default", { mark: "old" }],
      ["\ufffd", "default", { mark: "old" }],
      ["b", "default", { other: "same" }],
      ['{"n":1}', "side", { mark: "m" }],
      [[1, 2], "default", {}],
      ["\ufffd", "default", {}],
    ],
  );
});

test("a refused message takes back what was told of it, before and after", () => {
  const plugin = harness({
    outputs: ["side"],
    writes: ["mark"],
    edits: { x: "/x" },
    process(message, out) {
      const tell = () => {
        out.forward("side");
        out.set("x", 1.5);
        out.setMetadata("mark", "m");
        out.emit("new");
      };
      tell();
      if (message.index === 1) {
        out.reject("first");
        tell();
        out.reject("refused");
        tell();
      }
    },
  });
  const { sent, rejected } = plugin.process(["{}", "{}", "{}"]);
  assert.deepEqual(rejected, [[1, "refused"]]);
  assert.deepEqual(sent.map(({ text, origin, output, metadata }) => [text, origin, output, metadata]), [
    ['{"x":1.5}', 0, "side", { mark: "m" }],
    ["new", 0, "default", {}],
    ['{"x":1.5}', 2, "side", { mark: "m" }],
    ["new", 2, "default", {}],
  ]);
});

test("a message to be offered again ends the batch", () => {
  const seen = [];
  const plugin = harness({
    process(message, out) {
      seen.push(message.text);
      out.emit(message.text);
      if (message.text === "b") {
        out.reject("no");
        out.retry("not yet", 0.5);
        out.forward();
      }
    },
  });
  const { sent, rejected, retry } = plugin.process(["a", "b", "c"]);
  assert.deepEqual([texts({ sent }), rejected, seen], [["a"], [], ["a", "b"]]);
  assert.deepEqual(retry, { message: 1, reason: "not yet", afterMs: 1 });
});

test("a message is offered again at once after a time below 0, and never after none", () => {
  const after = (afterMs) => harness({ process: (message, out) => out.retry("not yet", afterMs) }).process(["a"]).retry.afterMs;
  assert.deepEqual([after(-5), after(Infinity)], [0, 0xffffffff]);
  assert.throws(() => after(undefined), /after how many milliseconds/);
});

test("half of a surrogate pair, which has no UTF-8, becomes U+FFFD", () => {
  const plugin = transform({
    writes: ["mark"],
    edits: { value: "/a", raw: "/b" },
    process({ index }, out) {
      if (index === 1) return out.reject("no \ud800");
      if (index === 2) return out.retry("later \udfff", 1);
      out.forward();
      out.setMetadata("mark", "\ud800");
      out.set("value", "\ud800");
      out.setJson("raw", '"\ud800"');
      out.emit("\udfff", { metadata: { mark: "\ud800" } });
    },
    tick() {
      throw new Error("half \ud800");
    },
  });
  const { forwardMetadata, edits, emissions, rejections, retry } = decide(plugin, 3);
  assert.deepEqual(forwardMetadata, [{ tag: "same", val: "\ufffd" }]);
  // JSON has an escape for it.
  assert.deepEqual(edits.map(({ val }) => val), [['"\\ud800"'], ['"\ufffd"']]);
  assert.deepEqual([emissions.payloads.val[0].val, emissions.metadata[0].val], ["\ufffd", "\ufffd"]);
  assert.deepEqual([rejections[0].reason, retry.reason], ["no \ufffd", "later \ufffd"]);
  assert.throws(() => plugin.tick(1), (error) => error.startsWith("Error: half \ufffd"));
});

test("a batch may be decided on as columns", () => {
  const plugin = harness({
    fields: { price: field.number("/p") },
    processBatch(batch, outcome) {
      batch.column("price").forEach((price, index) => price > 1 && outcome.of(index).forward());
      assert.throws(() => outcome.of(0), /in their order/);
    },
  });
  assert.deepEqual(texts(plugin.process(['{"p":1}', '{"p":2}', "{}"])), ['{"p":2}']);
  const all = harness({ processBatch: (batch, outcome) => outcome.forwardAll(batch) });
  assert.deepEqual(texts(all.process(["a", "b"])), ["a", "b"]);
});

test("a name that was not declared is refused with those that were", () => {
  const plugin = transform({ outputs: ["trades"], edits: { notional: "/n" }, process: (_, out) => out.set("notionl", 1) });
  assert.throws(
    () => decide(plugin, 1),
    (error) => error.startsWith('TypeError: "notionl" is not declared in edits, did you mean "notional"? (declared: "notional")'),
  );
  const lost = transform({ outputs: ["trades"], process: (_, out) => out.forward("other") });
  assert.throws(() => decide(lost, 1), (error) => error.includes('(declared: "default", "trades")'));
});

test("what cannot be declared is refused", () => {
  assert.throws(() => field.text("price"), /"price" is not a JSON pointer: it does not begin with "\/"/);
  assert.throws(() => field.number("/a~b"), /is not a JSON pointer/);
  const refused = (plugin, text) => assert.throws(() => harness(plugin), text);
  refused({ fields: { text: field.text("/t") }, process() {} }, /a field cannot be named "text"/);
  refused({ fields: { price: "/p" }, process() {} }, /the field "price" is not made by field.number/);
  refused({}, /no function process/);
  refused(undefined, /a plugin is an object, and not nothing/);
  refused({ process() {}, tickEvery: "1s" }, /tickEvery is a number of milliseconds/);
  assert.throws(() => new Harness(transform({ process() {} }), { above: 1 }), /above is not known: the plugin has no configuration/);
});

test("what no plugin has is refused before there is a configuration, and says what was meant", () => {
  const refused = (given, make, message) => assert.throws(() => transform(given, make), { name: "TypeError", message });
  const known = /^"edit" is not known of a plugin, did you mean "edits"\? \(known: "outputs", "reads", .*"restorePart"\)$/;
  refused({ edit: { x: "/x" }, process() {} }, undefined, known);
  refused({ config: {}, process() {} }, undefined, /^"config" is not known of a plugin \(known: /);
  refused({}, undefined, "the plugin has no function process(message, out)");
  refused({ proces() {} }, undefined, /^"proces" is not known of a plugin, did you mean "process"\?/);
  refused({ confg: {} }, () => ({}), /^"confg" is not known of what stands before .*, did you mean "config"\? \(known: "config"\)$/);
  refused({}, { process() {} }, "what makes the plugin of its configuration is no function");
  // What a function makes is there when there is a configuration.
  assert.throws(() => new Harness(transform({}, () => ({ proces() {} }))), /"proces" is not known of a plugin, did you mean "process"/);
  assert.throws(() => new Harness(transform({}, () => {})), /a plugin is an object, and not nothing/);
});

test("a plugin has members of its own beside what plugins have", () => {
  const counting = { count: 0, process: (message, out) => out.emit(`${(counting.count += 1)}`) };
  const { sent } = new Harness(transform(counting)).process(["a", "b"]);
  assert.deepEqual(sent.map(({ text }) => text), ["1", "2"]);
});

test("an instance of a class has members of its own beside what plugins have", () => {
  class Counting {
    edit = 0;
    process(message, out) {
      out.emit(++this.edit);
    }
  }
  assert.deepEqual(texts(harness(new Counting()).process(["a", "b"])), ["1", "2"]);
});

test("what is thrown while a component is made says where, in the files of the plugin", () => {
  const origins = { files: ["src/my.ts"], lines: [0, 0, [0, 7]] };
  const said = (frames) =>
    `: Failed to evaluate user JavaScript module: Failed to finish JavaScript module evaluation: Error: no process\n${frames}`;
  const frames = "    at transform (componentize-qjs:user.js:1:3)\n    at <anonymous> (componentize-qjs:user.js:3:9)\n";
  assert.equal(thrownIn(said(frames), origins), "src/my.ts:7: no process");
  assert.equal(thrownIn(said(""), origins), "no process");
  assert.equal(thrownIn("the world has no such export", origins), undefined);
});

test("what is thrown says where, in the files of the plugin", () => {
  const boom = transform({ process: () => null.x });
  const inTest = /^TypeError: Cannot read .* \(at .*process test\/transform\.test\.js:[0-9]+, /;
  assert.throws(() => decide(boom, 1), (error) => inTest.test(error) && !error.includes("node:"));
  globalThis.tidemillSources = { files: ["src/my.ts"], lines: [0, [0, 7], [0, 12], 0] };
  assert.deepEqual([1, 2, 3, 4, 5].map((line) => placeOf("guest.js", line)), [undefined, "src/my.ts:7", "src/my.ts:12", undefined, undefined]);
  delete globalThis.tidemillSources;
  const asking = transform({ process: () => fetch2("https://a.example/") });
  const lacking = transform({ process: () => { throw new ReferenceError("fetch is not defined"); } });
  assert.throws(() => decide(asking, 1), (error) => error.startsWith("ReferenceError: fetch2 is not defined (at "));
  assert.throws(() => decide(lacking, 1), (error) => error.startsWith("ReferenceError: fetch is not defined: a plugin has no fetch: write http.get(url) "));
  const text = transform({ process: () => { throw "as it is"; } });
  assert.throws(() => decide(text, 1), (error) => error === "as it is");
  const object = transform({ process: () => { throw { code: 1 }; } });
  assert.throws(() => decide(object, 1), (error) => error === '{"code":1}');
});

test("an async callback is refused, for nothing waits for it", () => {
  for (const plugin of [transform({ async process() {} }), transform({ async processBatch() {} })]) {
    assert.throws(() => decide(plugin, 1), (error) => error.includes("the function is async"));
  }
});

test("timers and the end emit without an origin", () => {
  const plugin = harness({
    writes: ["mark"],
    tickEvery: 0.2,
    process() {},
    tick: (nowUs, out) => out.emit(`${nowUs}`, { metadata: { mark: "t" } }),
    finish: (out) => out.emit("end"),
  });
  assert.equal(plugin.description.tickMs, 1);
  assert.deepEqual(plugin.tick(7).map(({ text, metadata }) => [text, metadata]), [["7", { mark: "t" }]]);
  assert.deepEqual(texts({ sent: plugin.finish() }), ["end"]);
  assert.deepEqual(harness({ process() {} }).tick(), []);
});

test("state goes on as JSON, or as bytes of its own", () => {
  const counter = () => {
    let counts = {};
    return {
      process: ({ text }) => void (counts[text] = (counts[text] ?? 0) + 1),
      finish: (out) => out.emit(counts),
      snapshot: () => counts,
      restore: (state) => void (counts = state),
    };
  };
  const old = harness(counter());
  old.process(["ż", "b", "ż"]);
  const fresh = harness(counter());
  fresh.restore(old.snapshot());
  assert.deepEqual(texts({ sent: fresh.finish() }), ['{"ż":2,"b":1}']);
  assert.throws(() => fresh.restore(Uint8Array.of(0xff)), /the state is not JSON/);
  assert.throws(() => fresh.restore([old.snapshot(), old.snapshot()], 0, 2), /cannot share its state out/);
  assert.equal(harness({ process() {} }).snapshot(), null);
  const bytes = harness({ process() {}, snapshot: () => Uint8Array.of(1, 2) });
  assert.deepEqual(bytes.snapshot(), Uint8Array.of(1, 2));
  const lossy = harness({ process() {}, snapshot: () => ({ counts: new Map() }) });
  assert.throws(() => lossy.snapshot(), /"counts" is a Map, which JSON loses: use Object.fromEntries/);
  for (const value of [new Set(), 1n, NaN]) {
    assert.throws(() => harness({ process() {}, snapshot: () => [value] }).snapshot(), /"0" is /);
  }
});

test("a share of the state is restored", () => {
  let kept;
  const plugin = harness({
    process() {},
    restorePart(snapshots, part) {
      kept = snapshots.flatMap((snapshot) => snapshot.json()).filter((key) => part.has(key));
    },
  });
  const snapshots = [utf8.encode('["a","BTCUSDT"]'), utf8.encode('["foobar"]')];
  const all = [0, 1, 2].flatMap((part) => (plugin.restore(snapshots, part, 3), kept));
  assert.deepEqual(all.sort(), ["BTCUSDT", "a", "foobar"]);
});

test("a native test has a host in memory", () => {
  log.warn("low");
  metrics.add("seen");
  metrics.add("seen", 2);
  metrics.set("depth", 3);
  metrics.observe("size", 4);
  host.randoms = [0.25];
  host.nowUs = 10;
  state.set("a", "1", { ttlMs: 1 });
  state.setMany([{ key: "b", value: Uint8Array.of(2) }, { key: "c", value: "3" }, { key: "c" }]);
  assert.deepEqual(host.lines, [["warn", "low"]]);
  assert.deepEqual([host.counters.get("seen"), host.gauges.get("depth"), host.histograms.get("size")], [3, 3, [4]]);
  assert.deepEqual([random.next(), clock.nowUs()], [0.25, 10]);
  assert.deepEqual(state.getMany(["a", "b", "c"]), [utf8.encode("1"), Uint8Array.of(2), undefined]);
  assert.deepEqual(state.keys(), ["a", "b"]);
  host.nowUs = 1010;
  assert.equal(state.get("a"), undefined);
  state.remove("b");
  assert.deepEqual(state.keys(), []);
  assert.throws(() => state.set("k".repeat(1025), ""), /at most 1024 bytes/);
  assert.throws(() => state.set("k", 1), /a text or bytes/);
});

/** A plugin that forwards, and edits one member. */
function edit(change, forwards = () => true) {
  return transform({
    edits: { x: "/x" },
    process({ index }, out) {
      change(out, index);
      if (forwards(index)) out.forward();
    },
  });
}

/** What crosses for so many messages without anything. */
function decide(transformer, count) {
  transformer.init("{}", []);
  return transformer.process({ count, payloads: null, times: null, columns: null });
}
