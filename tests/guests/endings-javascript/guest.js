// What plugins in JavaScript do as they do elsewhere: each message is an order.

import { transform } from "tidemill-plugin";

const ORDERS = {
  now: () => [Date.now(), new Date().toISOString(), new Date(5).getTime()],
  random: () => [Math.random(), Math.random()],
  print: () => console.log("printed", { a: 1 }) ?? "printed",
  async: async () => "never",
};

export const transformer = transform({
  process(message, out) {
    const said = ORDERS[message.text]();
    if (said instanceof Promise) return said;
    out.emit(said);
  },
});
