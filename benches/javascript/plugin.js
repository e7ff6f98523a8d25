// What `relay.mjs --notional` does, as a plugin in JavaScript: messages with a price above 100 are kept, and have
// `notional` added.

import { field, transform } from "tidemill-plugin";

export const transformer = transform({}, () => ({
  fields: { price: field.number("/price"), quantity: field.number("/qty") },
  edits: { notional: "/notional" },
  onlyJson: true,
  payloads: false,

  process(message, out) {
    if (!(message.price > 100)) return;
    out.forward();
    out.set("notional", message.price * message.quantity);
  },
}));
