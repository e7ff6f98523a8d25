// Keeps the trades that are worth more than `above`, with a field more: `notional`, what the trade was worth.

import { config, field, plugin, transform } from "tidemill-plugin";

export const transformer = transform({ config: { above: config.number(0) } }, ({ above }) => plugin({
  fields: { event: field.text("/data/e"), price: field.number("/data/p"), quantity: field.number("/data/q") },
  edits: { notional: "/notional" },
  onlyJson: true,
  payloads: false,

  // Decides on one message. One that nothing is said of is filtered.
  process({ event, price, quantity }, out) {
    if (event !== "trade" || price === undefined || quantity === undefined) return;
    const notional = price * quantity;
    if (notional > above) {
      out.forward();
      out.set("notional", notional);
    }
  },
}));
