// Columns on their way out.

export const text = (val) => ({ tag: "text", val });

/** The emissions of one call, collected as columns. */
export class Emissions {
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
      metadata: marks(this.marks),
    };
  }
}

/** The metadata columns of emissions or forwarded messages of which some have a mark. */
export function marks(given) {
  const value = (mark) => (mark === "-" ? "" : mark);
  const marked = given.filter((mark) => mark !== "").length;
  if (marked === 0) return [];
  if (marked === given.length) return [{ tag: "each", val: given.map(value) }];
  const settings = [];
  given.forEach((mark, index) => {
    if (mark !== "") settings.push({ index, value: value(mark) });
  });
  return [{ tag: "sparse", val: settings }];
}
