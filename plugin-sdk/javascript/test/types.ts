// What the types promise: this compiles, and each line marked so does not.

import { config, connector, field, http, json, plugin, state, transform, tumbling } from "tidemill-plugin";
import { Harness } from "tidemill-plugin/testing";

const windows = tumbling({ size: "1m", initial: () => ({ volume: 0 }), add: (total, value: number) => void (total.volume += value) });

export const transformer = transform({ config: { above: config.number(100), mode: config.oneOf(["a", "b"]) } }, ({ above, mode }, facts) => plugin({
  fields: { price: field.number("/p"), symbol: field.text("/s"), rest: field.json<{ x: number }>("/r") },
  edits: { notional: field.number("/notional"), note: "/note" },
  outputs: ["side"],
  writes: ["mark"],
  process(message, out) {
    const price: number | undefined = message.price;
    const bound: number = above;
    const isA: boolean = mode === "a" && facts.pipeline === "p";
    if (price !== undefined && price > bound && isA) out.forward("side");
    out.set("notional", 1);
    out.set("note", { any: message.rest?.x });
    out.emit(message.symbol, { output: "side", metadata: { mark: "m" } });
    for (const { key, value } of windows.add("k", 1, 2)) out.emit({ key, volume: value.volume });
    // @ts-expect-error: no such field
    message.prise;
    // @ts-expect-error: no such edit
    out.set("notionl", 1);
    // @ts-expect-error: it is declared as a number
    out.set("notional", "1");
    // @ts-expect-error: no such output
    out.forward("sid");
    // @ts-expect-error: no such mode
    mode === "c";
  },
  processBatch(batch, outcome) {
    const prices: readonly number[] = batch.column("price");
    prices.forEach((price, index) => price > 1 && outcome.of(index).forward());
  },
  snapshot: () => windows.snapshot(),
  restore: (kept) => windows.restore(kept),
}));

export const bare = transform({
  fields: { price: field.number("/p") },
  process(message, out) {
    if (message.price === 1) out.forward();
    // @ts-expect-error: no such field
    message.prise;
  },
});

// @ts-expect-error: no such option
export const misspelt = transform({ edit: {}, process() {} });
// @ts-expect-error: no such option beside a function that makes the plugin
export const misplaced = transform({ confg: {} }, () => ({ process() {} }));
// @ts-expect-error: no such option
export const wrong = connector({ tickEach: 1, beforeConnect() {} });

export const atTheEnd = transform({
  outputs: ["side"],
  process() {},
  finish(out) {
    windows.closeAll(out, ({ key, value }) => out.emit({ key, volume: value.volume }, { output: "side" }));
    // @ts-expect-error: nothing says how a window is emitted
    windows.closeAll(out);
  },
});

export const dialler = connector({ config: { url: config.text() } }, ({ url }) => ({
  beforeConnect(dial, attempt) {
    dial.setHeader("authorization", http.get(url).success().text());
    state.set("attempts", json.encode(attempt.number), { ttlMs: 1 });
  },
}));

const text: string | undefined = new Harness(transformer).process(["{}"]).sent[0].text;
void text;
