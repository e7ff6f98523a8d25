// A connector, as ../src/lib.rs is one in Rust: before a later dial it does what the ending of the last says.

import { Later, config, connector, http } from "tidemill-plugin";

const keys = { key: config.text(), tick_ms: config.integer(0) };

export const dialler = connector({ config: keys }, ({ key, tick_ms }) => ({
  tickEvery: tick_ms,

  beforeConnect(dial, { number, last }) {
    if (last === undefined) {
      dial.setHeader("Authorization", `Bearer ${key}`);
      dial.sendFirst("hello żółw");
      return;
    }
    const { outcome, detail, status, closeCode, lastedMs } = last;
    const [order] = detail.split(":", 1);
    const argument = detail.slice(order.length + 1);
    if (order === "told") dial.setHeader("X-Told", `${number} ${outcome} ${status ?? 0} ${closeCode ?? 0} ${lastedMs}`);
    else if (order === "url") dial.url = argument;
    else if (order === "ask") dial.setHeader("X-Answer", http.get(argument).text());
    else if (order === "later") throw new Later(argument, 250);
    else throw new Error(argument);
  },

  tick(nowUs) {
    if (nowUs % 2 !== 0) throw new Error(`${nowUs} is odd`);
  },
}));
