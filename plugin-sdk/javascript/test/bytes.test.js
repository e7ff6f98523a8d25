import assert from "node:assert/strict";
import { test } from "node:test";
import { Part, hash, json, utf8 } from "tidemill-plugin";
import { originsOf } from "../src/build/sources.js";
import { worldOf } from "../src/build/world.js";

test("UTF-8 is what the platform's own coders make of it", () => {
  const texts = ["", "ascii", "ż", "aż🐢\u{10ffff}b", "\ud800", "x\udc00y", "€".repeat(5000), "a".repeat(9000)];
  for (const text of texts) {
    const bytes = new TextEncoder().encode(text);
    assert.deepEqual(utf8.encode(text), bytes);
    assert.equal(utf8.decode(bytes), text.toWellFormed());
  }
});

test("bytes that are not UTF-8 are refused", () => {
  for (const bytes of [[0x80], [0xc0, 0x80], [0xe0, 0x80, 0x80], [0xed, 0xa0, 0x80], [0xf4, 0x90, 0x80, 0x80], [0xf5], [0xc3], [0xc3, 0x28]]) {
    assert.throws(() => new TextDecoder("utf-8", { fatal: true }).decode(Uint8Array.from(bytes)), String(bytes));
    assert.throws(() => utf8.decode(bytes), /is not UTF-8/, String(bytes));
  }
});

test("JSON comes back as it went", () => {
  const value = { a: [1.5, -0.1, 1e300, "ż"], b: null };
  assert.deepEqual(json.decode(json.encode(value)), value);
  assert.throws(() => json.encode(undefined), /nothing is no JSON/);
});

// The numbers are those of FNV-1a as its authors publish them.
test("shares are those of the host", () => {
  const hashes = { "": 0xcbf29ce484222325n, a: 0xaf63dc4c8601ec8cn, foobar: 0x85944171f73967e8n, BTCUSDT: 0x3e640dbff523962cn };
  for (const [key, expected] of Object.entries(hashes)) {
    assert.equal(hash(key), expected, key);
    for (let of = 1; of < 7; of++) {
      const owners = Array.from({ length: of }, (_, number) => new Part(number, of)).filter((part) => part.has(key));
      assert.deepEqual(owners.map(({ number }) => number), [Number(expected % BigInt(of))]);
    }
  }
  let slow = 0xcbf29ce484222325n;
  for (const byte of utf8.encode("żółw 🐢")) slow = BigInt.asUintN(64, (slow ^ BigInt(byte)) * 1099511628211n);
  assert.equal(hash("żółw 🐢"), slow);
});

test("the world is the smallest that has what is imported", () => {
  const [state, http] = ["tidemill:plugin/state@0.1.0", "tidemill:plugin/http@0.1.0"];
  assert.equal(worldOf([], ["transformer"]), "transform-pure");
  assert.equal(worldOf([state], ["transformer"]), "transform");
  assert.equal(worldOf([state, http], ["transformer"]), "transform-http");
  assert.equal(worldOf([], ["dialler"]), "connector");
  assert.equal(worldOf([http], ["dialler"]), "connector-http");
  assert.equal(worldOf([], ["other"]), undefined);
});

test("lines of a bundle are found in their files", () => {
  // Two lines of the SDK, then lines 1 and 3 of the plugin, then a line of nowhere.
  const map = { sources: ["sdk.js", "plugin.ts"], mappings: "AAAA;AACA;ACDA,EAAE;AAEA;;" };
  const { files, lines } = originsOf(map, (source) => source === "plugin.ts");
  assert.deepEqual([files, lines], [["plugin.ts"], [0, 0, [0, 1], [0, 3], 0, 0]]);
});
