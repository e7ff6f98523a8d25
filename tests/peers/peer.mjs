// A peer of the host by Node's `ws`; see peer.py, which does the same.
import { createRequire } from "node:module";
import { createServer as createPlainServer } from "node:http";
import { createServer as createTlsServer } from "node:https";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import assert from "node:assert";

// Where the tests have installed it.
const require = createRequire(`${process.env.NODE_TOOLS}/package.json`);
const { WebSocket, WebSocketServer } = require("ws");

const COUNT = 1000;
const message = (n) => (n % 3 ? `text ${n} \u00e4\u20ac` : Buffer.from(`\u0000\u0001${n}`, "latin1"));
const say = (word, rest = "") => console.log(word, rest);

function sendAll(socket) {
  for (let n = 0; n < COUNT; n++) socket.send(message(n));
}

// Calls `whenAll` at the end, which may answer with what is to be done with each message that follows.
function receiveAll(socket, whenAll = () => {}) {
  let n = 0;
  let then;
  socket.on("message", (data, isBinary) => {
    if (n === COUNT) return then(data);
    const expected = message(n);
    assert.strictEqual(isBinary, typeof expected !== "string", `type of message ${n}`);
    assert.deepStrictEqual(isBinary ? data : data.toString(), expected, `message ${n}`);
    if (++n < COUNT) return;
    say("received all");
    then = whenAll();
  });
  socket.on("close", (code) => say("closed", code));
}

function handshake(socket, request) {
  const { headers } = request;
  return {
    authorization: headers.authorization,
    "x-room": headers["x-room"],
    offered: headers["sec-websocket-protocol"],
    chosen: socket.protocol,
    client: request.socket.getPeerCertificate().subject.CN,
  };
}

function serve(options) {
  let server = createPlainServer();
  if (options) {
    const [cert, key, ca] = [options.cert, options.key, options.clients].map((file) => readFileSync(file));
    server = createTlsServer({ cert, key, ca, requestCert: true });
  }
  const handleProtocols = (offered) => options.subprotocols.find((each) => offered.has(each)) ?? false;
  const sockets = new WebSocketServer({ server, handleProtocols });
  const handshakes = {};
  sockets.on("connection", (socket, request) => {
    if (options) handshakes[request.url] = handshake(socket, request);
    if (request.url === "/feed") return sendAll(socket);
    receiveAll(socket, () => options && say("handshakes", JSON.stringify(handshakes)));
    socket.on("close", () => server.close());
  });
  server.listen(0, "127.0.0.1", () => say("listening", server.address().port));
}

async function dial(url, options) {
  const more = options ? { ca: readFileSync(options.ca), headers: options.headers } : {};
  const connect = (path) => new WebSocket(`${url}${path}`, options?.subprotocols ?? [], more);
  const reader = connect("/out");
  try {
    await once(reader, "open");
  } catch (error) {
    assert.match(error.message, /unable to verify|self-signed certificate/);
    return say("refused");
  }
  const writer = connect("/in");
  receiveAll(reader, () => {
    if (!options) return;
    writer.send("{}");
    say("chosen", JSON.stringify([writer.protocol, reader.protocol]));
    return (data) => say("answer", data.toString());
  });
  await once(writer, "open");
  sendAll(writer);
}

const [role, ...rest] = process.argv.slice(2);
const url = role === "dial" ? [rest.shift()] : [];
const options = rest.length ? JSON.parse(rest[0]) : undefined;
({ serve, dial })[role](...url, options);
