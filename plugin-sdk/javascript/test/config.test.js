import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { config } from "tidemill-plugin";
import { nanoseconds } from "../src/duration.js";

const read = (keys, value) => config.readConfig(keys, JSON.stringify(value));
const refused = (keys, value, text) =>
  assert.throws(() => read(keys, value), (error) => error.name === "ConfigError" && error.message === text);

const KEYS = {
  by: config.pointer(),
  above: config.number(100),
  window: config.duration("1m"),
  match: config.oneOf(["all", "any"], "all"),
  label: config.optional(config.text()),
};

test("keys are read, and have defaults", () => {
  assert.deepEqual(read(KEYS, { by: "/s" }), { by: "/s", above: 100, window: 60_000, match: "all", label: undefined });
  assert.equal(read(KEYS, { by: "/s", window: "1.5s" }).window, 1500);
  const nested = { where: config.list(config.object({ field: config.pointer(), value: config.integer(0) })) };
  assert.deepEqual(read(nested, { where: [{ field: "/a" }] }), { where: [{ field: "/a", value: 0 }] });
  assert.deepEqual(read({ outputs: config.table(config.text()) }, { outputs: { a: "b" } }), { outputs: { a: "b" } });
  assert.deepEqual(read({ on: config.boolean(false) }, { on: true }), { on: true });
});

test("what is wrong is told by key, with what was expected", () => {
  refused(KEYS, {}, 'by is missing, which is a JSON pointer such as "/data/p"');
  refused(KEYS, { by: "s" }, 'by is "s", and must be a JSON pointer such as "/data/p"');
  refused(KEYS, { by: "", above: "x" }, 'above is "x", and must be a number');
  refused(KEYS, { by: "", window: "1 m" }, 'window is "1 m", and must be a duration such as "250ms", "10s" or "1m30s"');
  refused(KEYS, { by: "", match: "some" }, 'match is "some", and must be "all" or "any"');
  refused(KEYS, { by: "", abov: 1 }, "abov is not known, did you mean above? (the keys are by, above, window, match, label)");
  refused(KEYS, { by: "", label: null }, "label is null, and must be a text");
  const nested = { where: config.list(config.object({ value: config.integer() })) };
  refused(nested, { where: [{ value: 1 }, { value: 1.5 }] }, "where[1].value is 1.5, and must be a whole number");
  refused(nested, { where: [{ vlue: 1 }] }, "where[0].vlue is not known, did you mean value? (the keys are value)");
  refused(nested, { where: {} }, "where is an object, and must be a list");
  refused(KEYS, [], "the configuration is a list, and must be a table");
});

test("durations are read as the host reads them", () => {
  const cases = readFileSync(new URL("../../rust/tests/durations.txt", import.meta.url), "utf8");
  for (const line of cases.split("\n").filter((line) => line !== "" && !line.startsWith("#"))) {
    const [, text, expected] = /^"(.*)" (\S+)$/.exec(line);
    assert.equal(nanoseconds(text), expected === "none" ? undefined : BigInt(expected), line);
  }
  assert.throws(() => config.duration("1 m"), /is not a duration/);
});
