// What the JSON fields of a message say is to become of it.

import { field } from "tidemill-plugin";

/** What each mode declares, and how it decides on a message. */
export const MODES = {
  fields: {
    fields: {
      price: field.number("/price"),
      order: field.text("/do"),
      words: field.text("/a~1b"),
      first: field.json("/set/0"),
      second: field.json("/set/1"),
    },
    edits: { price: field.number("/price"), note: "/note", deepNote: "/deep/note" },

    decide(message, out) {
      switch (message.order) {
        case "drop":
          break;
        case "show": {
          const cents = message.price === undefined ? undefined : Math.round(100 * message.price);
          const shown = [cents, message.words, message.raw("first"), message.raw("second")];
          out.emit(shown.map((value) => value ?? "-").join("|"));
          break;
        }
        case "edit":
          out.forward();
          if (message.price !== undefined) out.set("price", 2 * message.price);
          note(out, "note", message.raw("first"));
          note(out, "deepNote", message.raw("second"));
          break;
        default:
          out.forward();
      }
    },
  },

  filter: {
    fields: { price: field.number("/p"), symbol: field.text("/s") },

    decide(message, out) {
      if (message.price > 100 && message.symbol === "BTCUSDT") out.forward();
    },
  },

  notional: {
    fields: { price: field.number("/p"), quantity: field.number("/q") },
    edits: { notional: field.number("/notional") },

    decide(message, out) {
      out.forward();
      const { price, quantity } = message;
      if (price !== undefined && quantity !== undefined) out.set("notional", price * quantity);
    },
  },

  symbol: {
    fields: { symbol: field.text("/s") },

    decide(message, out) {
      out.emit(message.symbol ?? "-");
    },
  },
};

/** An empty string stands for removal. */
function note(out, edit, json) {
  if (json === '""') out.remove(edit);
  else if (json !== undefined) out.setJson(edit, json);
}
