// What an earlier instance left.

import { decode } from "./utf8.js";

/** The state of an instance, as it was given by its `snapshot`. */
export class Snapshot {
  constructor(bytes) {
    this.bytes = bytes instanceof Uint8Array ? bytes : Uint8Array.from(bytes);
  }

  /** As text. */
  text() {
    return decode(this.bytes);
  }

  /** As JSON, which is what `snapshot` makes of everything but bytes. */
  json() {
    let text;
    try {
      text = this.text();
      return JSON.parse(text);
    } catch (error) {
      throw new Error(`the state is not JSON: ${error.message}`);
    }
  }
}
