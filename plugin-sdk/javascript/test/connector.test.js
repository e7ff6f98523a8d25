import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { Dial, Later, config, connector, http } from "tidemill-plugin";
import { host } from "tidemill-plugin/testing";

beforeEach(() => host.reset());

const DIAL = { url: "wss://example.com/?token=old&x=1", headers: [["Authorization", "old"]], subprotocols: ["a"], firstMessages: [], options: [] };

const token = connector({ config: { url: config.text() } }, ({ url }) => ({
  tickEvery: 1000,
  beforeConnect(dial, attempt) {
    if (attempt.number > 2) throw new Later("too often", 1500);
    const answer = http.post(url, { json: { last: attempt.last?.outcome } }).success();
    dial.setHeader("authorization", `Bearer ${answer.text()}`);
    dial.setQuery("token", "n w!");
    dial.sendFirst({ op: "login" });
  },
  tick() {
    throw new Error("not alive");
  },
}));

const dialled = (number, last = null) => token.beforeConnect({ dial: structuredClone(DIAL), number, last, facts: [] });

test("a connector changes what is dialled", () => {
  assert.deepEqual(token.init('{"url":"https://login.example.com/"}', []), { tickMs: 1000, options: [] });
  host.answer = () => ({ status: 200, headers: [["Content-Type", "text/plain"]], body: Buffer.from("t0ken") });
  const dial = dialled(1, { outcome: "closed" });
  assert.equal(dial.url, "wss://example.com/?x=1&token=n%20w%21");
  assert.deepEqual(dial.headers, [["authorization", "Bearer t0ken"]]);
  assert.deepEqual(dial.firstMessages, [{ tag: "text", val: '{"op":"login"}' }]);
  const [{ method, body, headers }] = host.requests;
  assert.deepEqual([method, Buffer.from(body).toString(), headers], ["POST", '{"last":"closed"}', [["content-type", "application/json"]]]);
});

test("a connector refuses with a reason, and says when to try again", () => {
  const refusal = (number) => {
    try {
      dialled(number);
    } catch (error) {
      return error;
    }
  };
  token.init('{"url":"https://login.example.com/"}', []);
  assert.deepEqual(refusal(3), { reason: "too often", retryAfterMs: 1500 });
  assert.match(refusal(1).reason, /^the request is denied: /);
  host.answer = () => ({ status: 503, headers: [], body: [] });
  assert.deepEqual(refusal(1), { reason: "the answer has the status 503", retryAfterMs: null });
  assert.throws(() => token.tick(1), (error) => error.startsWith("Error: not alive"));
});

test("half of a surrogate pair, which has no UTF-8, becomes U+FFFD", () => {
  const halves = connector({
    beforeConnect(dial, { number }) {
      if (number === 2) throw new Later("\ud800", -5);
      if (number === 3) throw new Error("\ud800");
      dial.url += "\ud800";
      dial.setHeader("x", "\ud800");
      dial.subprotocols.push("\ud800");
      dial.sendFirst("\ud800");
    },
  });
  halves.init("{}", []);
  const ask = (number) => halves.beforeConnect({ dial: structuredClone(DIAL), number, last: null, facts: [] });
  const { url, headers, subprotocols, firstMessages } = ask(1);
  assert.deepEqual([url.at(-1), headers[1][1], subprotocols[1], firstMessages[0].val], Array(4).fill("\ufffd"));
  assert.throws(() => ask(2), { reason: "\ufffd", retryAfterMs: 0 });
  assert.throws(() => ask(3), { reason: "\ufffd", retryAfterMs: null });
});

test("several requests go side by side, each with an answer of its own", () => {
  host.answer = ({ url }) => {
    if (url.endsWith("slow")) throw { tag: "timeout" };
    return { status: 200, headers: [["x-a", "1"]], body: Buffer.from('{"a":1}') };
  };
  const [good, slow] = http.sendAll([{ url: "https://a/", timeoutMs: 0.1 }, { url: "https://a/slow" }]);
  assert.deepEqual([good.json(), good.header("X-A"), good.ok], [{ a: 1 }, "1", true]);
  assert.ok(slow instanceof http.HttpError && slow.kind === "timeout");
  assert.equal(host.requests[0].timeoutMs, 1);
  assert.throws(() => http.get("https://a/slow"), /the answer took too long/);
});

test("a query is added where there is none", () => {
  const dial = new Dial({ url: "wss://a/b" });
  dial.setQuery("k", "v");
  assert.equal(dial.url, "wss://a/b?k=v");
});

test("what no connector has is refused before there is a configuration, and says what was meant", () => {
  const refused = (given, make, message) => assert.throws(() => connector(given, make), { name: "TypeError", message });
  refused({}, undefined, "the connector has no function beforeConnect(dial, attempt)");
  refused(
    { tickevery: 1, beforeConnect() {} },
    undefined,
    '"tickevery" is not known of a connector, did you mean "tickEvery"? (known: "tickEvery", "beforeConnect", "tick")',
  );
  refused({ tickEvery: 1 }, () => ({ beforeConnect() {} }), /^"tickEvery" is not known of what stands before .* \(known: "config"\)$/);
  const made = connector({}, () => ({ beforeConect() {} }));
  assert.throws(() => made.init("{}", []), (error) => error.includes('did you mean "beforeConnect"?'));
});
