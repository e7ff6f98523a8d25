import assert from "node:assert/strict";
import { test } from "node:test";
import { Harness } from "tidemill-plugin/testing";
import { transformer } from "./plugin.js";

test("a trade says what it was worth", () => {
  const plugin = new Harness(transformer, { above: 1 });
  const { sent } = plugin.process([
    '{"data":{"e":"trade","p":"2.5","q":"3"}}',
    '{"data":{"e":"trade","p":"2.5","q":"0.1"}}',
    '{"data":{"e":"depthUpdate"}}',
  ]);
  assert.deepEqual(sent.map(({ text }) => text), ['{"data":{"e":"trade","p":"2.5","q":"3"},"notional":7.5}']);
});
