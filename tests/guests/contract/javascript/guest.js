// The contract's fixture guest in JavaScript: ../README.md says what it does.

const OUTPUTS = ["default", "side"];

let count = 0;

/** The emissions of one call, collected as columns. */
class Emissions {
  payloads = [];
  origins = [];
  outputs = [];
  marks = [];

  add(origin, output, payload, mark = "") {
    this.payloads.push(payload);
    this.origins.push(origin);
    this.outputs.push(output);
    this.marks.push(mark);
  }

  /** As the contract wants them; `null` if there are none. */
  columns() {
    if (this.payloads.length === 0) return null;
    const { payloads, origins, outputs } = this;
    return {
      payloads: { tag: "each", val: payloads },
      origins,
      outputs: outputs.every((output) => output === 0) ? [] : outputs,
      metadata: this.#metadata(),
    };
  }

  #metadata() {
    const value = (mark) => (mark === "-" ? "" : mark);
    const marked = this.marks.filter((mark) => mark !== "").length;
    if (marked === 0) return [];
    if (marked === this.marks.length) return [{ tag: "each", val: this.marks.map(value) }];
    const settings = [];
    this.marks.forEach((mark, emission) => {
      if (mark !== "") settings.push({ emission, value: value(mark) });
    });
    return [{ tag: "sparse", val: settings }];
  }
}

const text = (val) => ({ tag: "text", val });

/** Splits at the first `parts - 1` colons; the last part keeps the rest. */
function split(command, parts) {
  const found = [];
  let start = 0;
  while (found.length < parts - 1) {
    const end = command.indexOf(":", start);
    found.push(command.slice(start, end));
    start = end + 1;
  }
  found.push(command.slice(start));
  return found;
}

export const transformer = {
  init(config) {
    if (config.includes('"refuse"')) throw "refused, as asked";
    const observe = config.includes('"observe"');
    return {
      outputs: ["side"],
      reads: observe ? ["room"] : [],
      writes: ["mark"],
      payloads: "each",
      times: observe,
      tickMs: 50,
      options: [],
    };
  },

  process({ payloads, times, metadata }) {
    const messages = payloads.val;
    const emitted = new Emissions();
    const forwarded = [];
    const forwardOutputs = [];
    const rejections = [];
    const forward = (index, output) => {
      forwarded.push(index);
      forwardOutputs.push(output);
    };
    const room = (index) => {
      const column = metadata?.[0];
      if (!column) return "";
      return column.tag === "same" ? column.val : column.val[index];
    };

    for (let index = 0; index < messages.length; index++) {
      const { tag, val } = messages[index];
      count += 1;
      if (tag === "binary") {
        emitted.add(index, 0, { tag: "binary", val: Uint8Array.from(val).reverse() });
        continue;
      }
      const colon = val.indexOf(":");
      switch (colon < 0 ? val : val.slice(0, colon)) {
        case "drop":
          break;
        case "emit": {
          const [, output, mark, rest] = split(val, 4);
          emitted.add(index, OUTPUTS.indexOf(output), text(rest), mark);
          break;
        }
        case "both":
          forward(index, 0);
          emitted.add(index, 0, text(val.slice(colon + 1)));
          break;
        case "room":
          emitted.add(index, 0, text(room(index)));
          break;
        case "time":
          emitted.add(index, 0, text(String(times ? times[index] : 0)));
          break;
        case "count":
          emitted.add(index, 0, text(String(count)));
          break;
        case "reject":
          rejections.push({ message: index, reason: val.slice(colon + 1) });
          break;
        case "fail":
          throw val.slice(colon + 1);
        default:
          forward(index, val === "forward:side" ? 1 : 0);
      }
    }

    const all = forwarded.length === messages.length;
    const none = forwarded.length === 0;
    return {
      forward: none ? { tag: "nothing" } : all ? { tag: "all" } : { tag: "these", val: forwarded },
      forwardOutputs: forwardOutputs.every((output) => output === 0) ? [] : forwardOutputs,
      emissions: emitted.columns(),
      rejections,
    };
  },

  tick(nowUs) {
    if (count === 0) return null;
    return {
      payloads: { tag: "each", val: [text(`tick:${nowUs}:${count}`)] },
      origins: [],
      outputs: [],
      metadata: [{ tag: "same", val: "timer" }],
    };
  },

  finish() {
    return {
      payloads: { tag: "each", val: [text(`finish:${count}`)] },
      origins: [],
      outputs: [1],
      metadata: [],
    };
  },

  snapshot() {
    return count === 0 ? null : Array.from(String(count), (digit) => digit.charCodeAt(0));
  },

  restore(snapshot) {
    const digits = String.fromCharCode(...snapshot);
    if (!/^[0-9]+$/.test(digits)) throw "not a count";
    count = Number(digits);
  },
};
