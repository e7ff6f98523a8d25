// A peer of the host by Node's `ws`; see peer.py, which does the same.
import { createRequire } from "node:module";
import { once } from "node:events";
import assert from "node:assert";

// Where the tests have installed it.
const require = createRequire(`${process.env.NODE_TOOLS}/package.json`);
const { WebSocket, WebSocketServer } = require("ws");

const COUNT = 1000;
const message = (n) => (n % 3 ? `text ${n} \u00e4\u20ac` : Buffer.from(`\u0000\u0001${n}`, "latin1"));
const say = (line) => console.log(line);

function sendAll(socket) {
  for (let n = 0; n < COUNT; n++) socket.send(message(n));
}

function receiveAll(socket) {
  let n = 0;
  socket.on("message", (data, isBinary) => {
    const expected = message(n);
    assert.strictEqual(isBinary, typeof expected !== "string", `type of message ${n}`);
    assert.deepStrictEqual(isBinary ? data : data.toString(), expected, `message ${n}`);
    if (++n === COUNT) say("received all");
  });
  socket.on("close", (code) => say(`closed ${code}`));
}

if (process.argv[2] === "serve") {
  const server = new WebSocketServer({ host: "127.0.0.1", port: 0 });
  server.on("listening", () => say(`listening ${server.address().port}`));
  server.on("connection", (socket, request) => {
    if (request.url === "/feed") return sendAll(socket);
    receiveAll(socket);
    socket.on("close", () => server.close());
  });
} else {
  const reader = new WebSocket(`${process.argv[3]}/out`);
  await once(reader, "open");
  receiveAll(reader);
  const writer = new WebSocket(`${process.argv[3]}/in`);
  await once(writer, "open");
  sendAll(writer);
}
