// The reference relay in JavaScript, on the `ws` package.
//
//   node relay.mjs SRC SNK [--notional] [--cork]
//
// --notional  keep messages with a price above 100 and add `notional`, as JSON.parse and stringify do
// --cork      write what one turn of the event loop produced at once: what an expert adds

import WebSocket from 'ws';

const [source, sink, ...flags] = process.argv.slice(2);
const notional = flags.includes('--notional');
const cork = flags.includes('--cork');

/** Bytes waiting in the sink at which reading pauses; it goes on when they are written. */
const HIGH_WATER = 1 << 20;

const output = await open(sink);
const input = new WebSocket(source, { perMessageDeflate: false });
const socket = output._socket;

input.on('message', (payload, binary) => {
  if (cork && socket.writableCorked === 0) {
    socket.cork();
    setImmediate(() => socket.uncork());
  }
  if (notional) {
    const trade = JSON.parse(payload.toString());
    if (!(trade.price > 100)) return;
    trade.notional = trade.price * trade.qty;
    output.send(JSON.stringify(trade));
  } else {
    output.send(payload, { binary });
  }
  if (output.bufferedAmount > HIGH_WATER && !input.isPaused) input.pause();
});
socket.on('drain', () => input.resume());
input.on('close', () => output.close());
output.on('close', () => process.exit(0));

/** A connection, once it is open. */
function open(url) {
  const connection = new WebSocket(url, { perMessageDeflate: false });
  return new Promise((resolve, reject) => {
    connection.once('open', () => {
      connection._socket.setNoDelay(true);
      resolve(connection);
    });
    connection.once('error', reject);
  });
}
