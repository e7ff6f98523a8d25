// Requests to the origins that the `allow` of the transform grants. A call waits for its answer; nothing is async.

import host from "#host/http";
import { encode as encodeJson } from "./json.js";
import { refusalOf } from "./refusal.js";
import { decode, encode, wellFormed } from "./utf8.js";

/** Why there is no answer. */
export class HttpError extends Error {
  name = "HttpError";

  /** `kind`: "invalid", "denied", "timeout", "too-large" or "failed". */
  constructor(kind, detail) {
    super(TEXTS[kind]?.(detail) ?? `${kind}: ${detail}`);
    this.kind = kind;
  }
}

const TEXTS = {
  invalid: (why) => `the request is invalid: ${why}`,
  denied: (why) => `the request is denied: ${why}`,
  timeout: () => "the answer took too long",
  "too-large": (most) => `the answer has more than ${most} bytes`,
  failed: (why) => `the request failed: ${why}`,
};

/** What was answered. Statuses of 400 and above are answers, not errors. */
export class Response {
  constructor({ status, headers = [], body = new Uint8Array() }) {
    this.status = status;
    this.headers = headers;
    this.body = typeof body === "string" ? encode(body) : Uint8Array.from(body);
  }

  /** Whether the status is one of success. */
  get ok() {
    return this.status >= 200 && this.status < 300;
  }

  /** The same, if its status is one of success; else throws the status. */
  success() {
    if (!this.ok) throw new Error(`the answer has the status ${this.status}`);
    return this;
  }

  /** The first value of a header, whose name has any case. */
  header(name) {
    return this.headers.find(([header]) => header.toLowerCase() === name.toLowerCase())?.[1];
  }

  text() {
    return decode(this.body);
  }

  json() {
    return JSON.parse(this.text());
  }
}

/** A request as it crosses. */
function lowered({ method = "GET", url, headers = {}, body, json, timeoutMs = 0 }) {
  const given = Array.isArray(headers) ? headers : Object.entries(headers);
  const pairs = given.map((pair) => pair.map((text) => wellFormed(String(text))));
  const sent = json === undefined ? body : encodeJson(json);
  return {
    method: wellFormed(method),
    url: wellFormed(String(url)),
    headers: json === undefined ? pairs : [...pairs, ["content-type", "application/json"]],
    body: sent === undefined ? [] : typeof sent === "string" ? encode(sent) : sent,
    timeoutMs: timeoutMs === 0 ? 0 : Math.max(1, Math.floor(timeoutMs)),
  };
}

const failed = ({ tag, val }) => new HttpError(tag, val);

/** Sends a request `{ method, url, headers, body or json, timeoutMs }`. Throws an {@link HttpError}. */
export function send(request) {
  const crossing = lowered(request);
  let answer;
  try {
    answer = host.send(crossing);
  } catch (error) {
    const refusal = refusalOf(error);
    throw refusal?.tag === undefined ? error : failed(refusal);
  }
  return new Response(answer);
}

/** Sends all requests side by side; of each the response, or the HttpError that there is in its place. */
export function sendAll(requests) {
  return host.sendAll(requests.map(lowered)).map(({ tag, val }) => (tag === "ok" ? new Response(val) : failed(val)));
}

export const get = (url, options) => send({ ...options, method: "GET", url });
export const post = (url, options) => send({ ...options, method: "POST", url });
