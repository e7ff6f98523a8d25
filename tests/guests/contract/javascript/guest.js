// The contract's fixture guest in JavaScript, with the SDK: ../README.md says what it does.

import { config, transform } from "tidemill-plugin";
import { obey, saveAndLoad } from "./commands.js";
import { MODES } from "./fields.js";

// Any configuration will do: only the words in it matter.
const anything = config.custom("anything", JSON.stringify);

export const transformer = transform({ config: anything }, (words) => {
  const has = (word) => words.includes(`"${word}"`);
  if (has("refuse")) throw new Error("refused, as asked");
  const mode = Object.keys(MODES).find(has);
  const { fields, edits, decide } = MODES[mode] ?? {};
  let count = 0;

  return {
    outputs: ["side"],
    reads: has("observe") ? ["room"] : [],
    writes: ["mark"],
    fields,
    edits,
    onlyJson: has("json"),
    guards: has("guards"),
    payloads: !has("blind"),
    times: has("observe"),
    tickEvery: 50,

    processBatch(batch, outcome) {
      if (decide === undefined && has("blind")) {
        count += batch.length;
        outcome.forwardAll(batch);
        return;
      }
      const loaded = decide === undefined ? saveAndLoad(batch) : undefined;
      for (const message of batch) {
        count++;
        const out = outcome.of(message.index);
        if (decide === undefined) obey(message, out, count, loaded);
        else decide(message, out);
        if (outcome.isStopped) break;
      }
    },

    tick(nowUs, out) {
      if (count > 0) out.emit(`tick:${nowUs}:${count}`, { metadata: { mark: "timer" } });
    },

    finish(out) {
      out.emit(`finish:${count}`, { output: "side" });
    },

    // A number is its digits as JSON.
    snapshot() {
      return count === 0 ? undefined : count;
    },

    restorePart(snapshots, part) {
      count = 0;
      for (const line of snapshots.flatMap((snapshot) => snapshot.text().split("\n"))) {
        const equals = line.lastIndexOf("=");
        const digits = line.slice(equals + 1);
        if (!/^[0-9]+$/.test(digits)) throw new Error("not a count");
        const isOwn = equals < 0 ? part.number === 0 : part.has(line.slice(0, equals));
        if (isOwn) count += Number(digits);
      }
    },
  };
});
