// Headless Chromium's own WebSocket as a peer of the host.
//
// browser.mjs ADDRESS    asks the host at ADDRESS; says `ok NAME` on standard output for each thing seen,
//                        and `done` at the end
//
// The pages are of our own making: whatever is asked for over HTTP is answered here, so that a page has
// any origin that a test needs, the host's own too.
import { createRequire } from "node:module";
import assert from "node:assert";

// Where the tests have installed it.
const require = createRequire(`${process.env.NODE_TOOLS}/package.json`);
const { chromium } = require("playwright-core");

const host = process.argv[2];
// Pages of made-up origins count as public, and may not reach this machine without being allowed to.
const checks = "LocalNetworkAccessChecks,LocalNetworkAccessChecksWebSockets";
const args = ["--no-sandbox", `--disable-features=${checks}`];
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args });
const context = await browser.newContext();
await context.route("**/*", (route) => route.fulfill({ contentType: "text/html", body: "<!doctype html>" }));
const page = await context.newPage();
let said = "";
page.on("console", (message) => (said += message.text()));

// What becomes of a WebSocket that a page at `origin` opens, and of a message that it sends.
async function dial(origin, path, protocols) {
  await page.goto(`${origin}/`);
  said = "";
  return await page.evaluate(
    ([url, protocols]) =>
      new Promise((resolve) => {
        const socket = protocols ? new WebSocket(url, protocols) : new WebSocket(url);
        const opened = () => socket.send("from a browser");
        socket.onopen = opened;
        socket.onmessage = (message) => {
          socket.close(1000);
          resolve({ message: message.data, protocol: socket.protocol });
        };
        socket.onclose = (closed) => resolve({ code: closed.code });
      }),
    [`ws://${host}${path}`, protocols],
  );
}

async function check(name, result, expected, why = "") {
  assert.deepStrictEqual(await result, expected, name);
  assert.ok(said.includes(why), `${name}: ${said}`);
  console.log(`ok ${name}`);
}

const own = `http://${host}`;
const foreign = "http://evil.test";
const echo = { message: "from a browser", protocol: "" };
const refused = { code: 1006 };
const forbidden = "Unexpected response code: 403";
const unauthorized = "no valid credentials";

await check("a page of the same host and port is let in", dial(own, "/open"), echo);
await check("a page of another host is not", dial(foreign, "/open"), refused, forbidden);
await check("nor one of another port", dial("http://127.0.0.1:1", "/open"), refused, forbidden);
await check("a listed origin is let in", dial("http://app.example.test", "/listed"), echo);
await check("one that is not listed is not", dial(foreign, "/listed"), refused, forbidden);
await check("without a token it is refused", dial(own, "/token"), refused, unauthorized);
await check("a token in the query is taken", dial(own, "/token?token=t%2D1"), echo);
await check("a wrong one is not", dial(own, "/token?token=t-2"), refused, unauthorized);
const offered = dial(own, "/token", ["bearer", "t-1"]);
await check("a token offered as a subprotocol is taken", offered, { ...echo, protocol: "bearer" });
await check("a wrong one is not", dial(own, "/token", ["bearer", "t-2"]), refused, unauthorized);
await context.addCookies([{ name: "token", value: "t-1", url: own }]);
await check("a token in a cookie is taken", dial(own, "/token"), echo);
await check("a subprotocol is agreed on", dial(own, "/token", ["v9", "v1"]), { ...echo, protocol: "v1" });
await browser.close();
console.log("done");
