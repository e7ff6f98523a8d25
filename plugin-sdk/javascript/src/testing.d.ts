import type { Part, Transformer } from "./index.js";

/** The host's services in memory: what a test sets and looks at. */
export const host: {
  /** The time, in microseconds since the Unix epoch. */
  nowUs: number;
  /** What `random` gives, one after the other and then again from the first. */
  randoms: number[];
  /** Lines of the log. */
  lines: [level: string, text: string][];
  counters: Map<string, number>;
  gauges: Map<string, number>;
  histograms: Map<string, number[]>;
  state: Map<string, { value: Uint8Array; until: number }>;
  /** The requests that were sent. */
  requests: { method: string; url: string; headers: [string, string][]; body: Uint8Array; timeoutMs: number }[];
  /** Answers a request, or throws `{ tag: "timeout" }` or another of the contract's errors. */
  answer: (request: { method: string; url: string; body: Uint8Array }) => {
    status: number;
    headers: [string, string][];
    body: Uint8Array;
  };
  /** Forgets everything. */
  reset(): void;
};

export interface Given {
  payload: string | Uint8Array;
  metadata?: Record<string, string>;
  receivedUs?: number;
}

export interface Sent {
  /** Its text; undefined of a binary message. */
  text: string | undefined;
  bytes?: Uint8Array;
  output: string;
  metadata: Record<string, string>;
  /** The index of the message that it is, or came from. */
  origin: number | undefined;
}

export interface Processed {
  sent: Sent[];
  rejected: [index: number, reason: string][];
  retry: { message: number; reason: string; afterMs: number } | null;
}

/** Runs a transform in a test. An edited message is written anew: its spaces are not those it came with. */
export class Harness {
  /** Makes the plugin of this configuration; throws what is wrong with it. */
  constructor(transformer: Transformer, config?: object, facts?: Record<string, string>);
  process(messages: (string | Uint8Array | Given)[]): Processed;
  tick(nowUs?: number): Sent[];
  finish(): Sent[];
  snapshot(): Uint8Array | null;
  restore(snapshots: Uint8Array | Uint8Array[], part?: Part["number"], parts?: Part["of"]): void;
}
