// Connectors: plugins that have the last word on what an endpoint dials, and may fetch a fresh token first.

import { readConfig } from "./config.js";
import { wholeMs } from "./duration.js";
import { faultText, guarded, refusing, settled } from "./failure.js";
import { refuseMisspelt, refuseUnread } from "./names.js";
import { wellFormed } from "./utf8.js";

/** An error of `beforeConnect` that says when to try again: not before `afterMs` milliseconds. A time below 0 is 0. */
export class Later extends Error {
  name = "Later";

  constructor(reason, afterMs) {
    super(reason);
    if (typeof afterMs !== "number" || Number.isNaN(afterMs)) {
      throw new TypeError("Later takes a reason, and after how many milliseconds");
    }
    this.afterMs = afterMs;
  }
}

/** What is dialled. */
export class Dial {
  constructor({ url, headers = [], subprotocols = [], firstMessages = [], options = [] }) {
    this.url = url;
    this.headers = headers;
    this.subprotocols = subprotocols;
    this.firstMessages = firstMessages;
    this.options = options;
  }

  /** The value of a header, whose name has any case. */
  header(name) {
    return this.headers.find(([header]) => header.toLowerCase() === name.toLowerCase())?.[1];
  }

  /** Sets a header, in the place of one of this name. */
  setHeader(name, value) {
    this.headers = this.headers.filter(([header]) => header.toLowerCase() !== name.toLowerCase());
    this.headers.push([name, String(value)]);
  }

  /** Sets a value of the url's query, in the place of one of this name; both are percent-encoded. */
  setQuery(name, value) {
    const [base, query = ""] = split(this.url, "?");
    const encoded = percent(name);
    const others = query.split("&").filter((pair) => pair !== "" && split(pair, "=")[0] !== encoded);
    this.url = `${base}?${[...others, `${encoded}=${percent(value)}`].join("&")}`;
  }

  /** Adds a message that is sent as soon as the connection is there: a text, bytes, or anything else as JSON. */
  sendFirst(value) {
    if (value instanceof Uint8Array) this.firstMessages.push({ tag: "binary", val: value });
    else this.firstMessages.push({ tag: "text", val: typeof value === "string" ? value : JSON.stringify(value) });
  }
}

/** What is dialled, as it crosses. */
function lowered({ url, headers, subprotocols, firstMessages, options }) {
  const texts = (list) => list.map((text) => wellFormed(String(text)));
  return {
    url: wellFormed(String(url)),
    headers: headers.map(texts),
    subprotocols: texts(subprotocols),
    firstMessages: firstMessages.map(({ tag, val }) => ({ tag, val: tag === "text" ? wellFormed(val) : val })),
    options,
  };
}

function split(text, at) {
  const place = text.indexOf(at);
  return place < 0 ? [text] : [text.slice(0, place), text.slice(place + at.length)];
}

/** Percent-encodes all but the characters that RFC 3986 leaves alone everywhere. */
function percent(value) {
  return encodeURIComponent(value).replace(/[!'()*]/g, (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`);
}

/**
 * Makes a connector: `export const dialler = connector(plugin)`, or `connector({ config }, (config, facts) => plugin)`
 * of one that has a configuration. Throws what is wrong with it, as far as that is known before there is a
 * configuration: a component of it is not built then.
 */
export function connector(given, make) {
  if (make !== undefined) refuseUnread(given, make);
  else check(given);
  const keys = make === undefined ? {} : given.config;
  let plugin;
  return {
    init: (config, facts) =>
      refusing(() => {
        const read = readConfig(keys, config);
        plugin = make === undefined ? given : settled(make(read, Object.fromEntries(facts)));
        check(plugin);
        const { tickEvery = 0 } = plugin;
        return { tickMs: tickEvery === 0 ? 0 : Math.max(1, Math.round(tickEvery)), options: [] };
      }),

    beforeConnect: ({ dial: given, number, last, facts }) => {
      try {
        const dial = new Dial(given);
        const attempt = { number, last: last ?? undefined, facts: Object.fromEntries(facts) };
        settled(plugin.beforeConnect(dial, attempt));
        return lowered(dial);
      } catch (error) {
        // A refusal is an error of the plugin's own; a mistake of its code says where it is.
        const isLater = error instanceof Later;
        const isOwn = isLater || (error instanceof Error && (error.constructor === Error || error.name === "HttpError"));
        const reason = wellFormed(isOwn ? error.message : faultText(error));
        throw { reason, retryAfterMs: isLater ? wholeMs(error.afterMs) : null };
      }
    },

    tick: (nowUs) => guarded(() => void settled(plugin.tick?.(nowUs))),
  };
}

function check(plugin) {
  refuseMisspelt(plugin, ["tickEvery", "beforeConnect", "tick"], "a connector");
  if (typeof plugin.beforeConnect !== "function") {
    throw new TypeError("the connector has no function beforeConnect(dial, attempt)");
  }
}
