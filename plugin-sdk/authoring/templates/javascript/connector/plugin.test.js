import assert from "node:assert/strict";
import { test } from "node:test";
import { dialler } from "./plugin.js";

test("the token is in the handshake", () => {
  dialler.init('{"token":"t0ken"}', []);
  const dial = { url: "wss://example.com/", headers: [], subprotocols: [], firstMessages: [], options: [] };
  const { headers } = dialler.beforeConnect({ dial, number: 1, last: null, facts: [] });
  assert.deepEqual(headers, [["Authorization", "Bearer t0ken"]]);
});
