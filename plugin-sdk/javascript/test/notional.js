import { config, field, transform } from "tidemill-plugin";

export const transformer = transform({ config: { above: config.number(100) } }, ({ above }) => ({
  fields: { price: field.number("/price"), quantity: field.number("/qty") },
  edits: { notional: "/notional" },
  onlyJson: true,
  payloads: false,

  process(message, out) {
    if (message.price > above) {
      out.forward();
      out.set("notional", message.price * message.quantity);
    }
  },
}));
