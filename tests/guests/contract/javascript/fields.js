// What the JSON fields of a message say is to become of it.

import { Emissions, text } from "./columns.js";

const ABOVE = 100;
const SYMBOL = "BTCUSDT";

const field = (kind) => (pointer) => ({ pointer, kind });
const [number, string, json] = ["number", "text", "json"].map(field);

/** The fields and the edits that each mode describes. */
export const MODES = {
  fields: {
    fields: [number("/price"), string("/do"), string("/a~1b"), json("/set/0"), json("/set/1")],
    edits: ["/price", "/note", "/deep/note"],
  },
  filter: { fields: [number("/p"), string("/s")], edits: [] },
  notional: { fields: [number("/p"), number("/q")], edits: ["/notional"] },
  symbol: { fields: [string("/s")], edits: [] },
};

export function decide(mode, batch) {
  const { count } = batch;
  // No metadata is read in these modes.
  const columns = batch.columns.map(({ val }) => val.val);
  const forwarded = [];
  if (mode === "filter") {
    const [prices, symbols] = columns;
    for (let n = 0; n < count; n++) if (prices[n] > ABOVE && symbols[n] === SYMBOL) forwarded.push(n);
    return outcome(count, forwarded, [], null);
  }
  if (mode === "notional") {
    const [prices, quantities] = columns;
    const worth = prices.map((price, n) => price * quantities[n]);
    return { ...outcome(count, worth, [{ tag: "numbers", val: worth }], null), forward: { tag: "all" } };
  }
  const emitted = new Emissions();
  if (mode === "symbol") {
    columns[0].forEach((symbol, n) => emitted.add(n, 0, text(symbol ?? "-")));
    return { ...outcome(count, [], [], emitted.columns()), forward: { tag: "nothing" } };
  }

  const [prices, orders, texts, first, second] = columns;
  const edits = [[], [], []];
  for (let n = 0; n < count; n++) {
    if (orders[n] === "drop") continue;
    if (orders[n] === "show") {
      const cents = Number.isNaN(prices[n]) ? null : String(Math.round(100 * prices[n]));
      emitted.add(n, 0, text([cents, texts[n], first[n], second[n]].map((value) => value ?? "-").join("|")));
      continue;
    }
    const edit = orders[n] === "edit";
    forwarded.push(n);
    edits[0].push(edit ? 2 * prices[n] : NaN);
    edits[1].push(edit ? note(first[n]) : null);
    edits[2].push(edit ? note(second[n]) : null);
  }
  const [doubled, notes, deepNotes] = edits;
  const written = [
    { tag: "numbers", val: doubled },
    { tag: "each", val: notes },
    { tag: "each", val: deepNotes },
  ];
  return outcome(count, forwarded, forwarded.length > 0 ? written : [], emitted.columns());
}

/** An empty string stands for removal. */
const note = (value) => (value === '""' ? "" : value);

function outcome(count, forwarded, edits, emissions) {
  return {
    forward: forwarded.length === count ? { tag: "all" } : { tag: "these", val: forwarded },
    forwardOutputs: [],
    forwardMetadata: [],
    edits,
    emissions,
    rejections: [],
    retry: null,
  };
}
