// The types of the JavaScript SDK. README.md says what there is.

/** What is wanted of a field. */
export interface Field<Value> {
  readonly pointer: string;
  readonly kind: "number" | "text" | "json";
  readonly value?: Value;
}

/** Fields of JSON messages: a place, and what is wanted of it. */
export namespace field {
  /** As a number: a JSON number, or a string that holds one. As an edit: always a number. */
  function number(pointer: string): Field<number>;
  /** As what a string says. */
  function text(pointer: string): Field<string>;
  /** Of any type, parsed when it is looked at. */
  function json<Value = any>(pointer: string): Field<Value>;
}

type Fields = Record<string, Field<any>>;
type Values<F extends Fields> = { readonly [Name in keyof F]: (F[Name] extends Field<infer V> ? V : never) | undefined };
type Edits = Record<string, string | Field<number>>;

/** One message of a batch. Each field that the plugin declares is a property of it. */
export type Message<F extends Fields = {}, R extends string = string> = Values<F> & {
  /** Its place in the batch. */
  readonly index: number;
  /** Whether it is a text message; true if the plugin does without payloads. */
  readonly isText: boolean;
  /** Its text; undefined of a binary message. "" if the plugin does without payloads. */
  readonly text: string | undefined;
  /** Its bytes, of a text those of its UTF-8. */
  readonly bytes: Uint8Array;
  /** When it was received, in microseconds since the Unix epoch; undefined unless the plugin wants `times`. */
  readonly receivedUs: number | undefined;
  /** What its text is as JSON. Fields that are declared are much faster. */
  parse(): any;
  /** The value of a metadata key; "" if the message does not have it. */
  metadata(key: R): string;
  /** A `json` field as it stands in the message. */
  raw(field: keyof F & string): string | undefined;
};

/** Messages in the order in which they came. */
export interface Batch<F extends Fields = {}, R extends string = string> extends Iterable<Message<F, R>> {
  readonly length: number;
  at(index: number): Message<F, R>;
  /** The values of a field, one a message: NaN (of a number) or null where a message does not have it. */
  column<Name extends keyof F & string>(
    field: Name,
  ): F[Name] extends Field<number> ? readonly number[] : readonly (string | null)[];
}

export interface EmitOptions<O extends string = string, W extends string = string> {
  /** The way out; as a rule "default". */
  output?: O | "default";
  /** Values of metadata keys; "" removes the key. What is not given is inherited from the origin. */
  metadata?: Partial<Record<W, string>>;
}

/** New messages that have no origin. */
export interface Emissions<O extends string = string, W extends string = string> {
  readonly length: number;
  /** Sends a new message. A text and bytes go as they are, anything else as JSON. */
  emit(value: unknown, options?: EmitOptions<O, W>): void;
}

/** What becomes of one message. One that nothing is said of is filtered. */
export interface Out<E extends Edits = Edits, O extends string = string, W extends string = string> {
  /** Lets the message go on, as a rule to the output "default". Of several calls the last counts. */
  forward(output?: O | "default"): void;
  /**
   * Sets a member of the message, if it goes on. A whole number is written as one, unless the edit is declared as a
   * number; NaN is written as null, and undefined leaves the member as it is.
   */
  set<Name extends keyof E & string>(edit: Name, value: E[Name] extends Field<number> ? number : unknown): void;
  /** Sets a member of the message, if it goes on, to a JSON text. */
  setJson(edit: keyof E & string, json: string): void;
  /** Removes a member of the message, if it goes on. */
  remove(edit: keyof E & string): void;
  /** Gives the message a value of a metadata key, if it goes on; "" removes the key. */
  setMetadata(key: W, value: string): void;
  /** Sends a new message that came from this one and inherits its metadata. */
  emit(value: unknown, options?: EmitOptions<O, W>): void;
  /** Refuses the message, and takes back what was told of it. */
  reject(reason: unknown): void;
  /** Has the message, and all behind it, offered again after this time; one below 0 is 0. */
  retry(reason: unknown, afterMs: number): void;
}

/** What became of the messages of a batch. */
export interface Outcome<E extends Edits = Edits, O extends string = string, W extends string = string>
  extends Out<E, O, W> {
  /** Whether a message is to be offered again: then those behind it are not decided on. */
  readonly isStopped: boolean;
  /** The way out of the message at an index: what is said next is about that one, and after it of later ones only. */
  of(index: number): Out<E, O, W>;
  /** Lets all messages go on that nothing was said of yet. */
  forwardAll(batch: { readonly length: number }): void;
}

/** What an earlier instance left. */
export interface Snapshot {
  readonly bytes: Uint8Array;
  text(): string;
  json(): any;
}

/** Which of several instances this one is. */
export class Part {
  constructor(number?: number, of?: number);
  readonly number: number;
  readonly of: number;
  readonly isWhole: boolean;
  /** Whether a key belongs to this instance. */
  has(key: string): boolean;
}
/** The hash of a key by which the host shares out messages: 64-bit FNV-1a of its UTF-8 bytes. */
export function hash(key: string): bigint;

export interface Plugin<
  F extends Fields = {},
  E extends Edits = {},
  O extends string = never,
  R extends string = never,
  W extends string = never,
> {
  /** Named ways out beside "default". */
  outputs?: readonly O[];
  /** Metadata keys of messages that the plugin looks at. */
  reads?: readonly R[];
  /** Metadata keys that the plugin may set. */
  writes?: readonly W[];
  /** Fields of JSON messages that the host finds. */
  fields?: F;
  /** Members of JSON messages that the plugin may change in what it forwards, as JSON pointers. */
  edits?: E;
  /** Whether the host rejects what is not JSON. */
  onlyJson?: boolean;
  /** Whether the plugin is there to keep something from going on: the host warns of `on_error = "pass"`. */
  guards?: boolean;
  /** Whether payloads cross; without, a message has its fields and metadata. As a rule they do. */
  payloads?: boolean;
  /** Whether messages have `receivedUs`. */
  times?: boolean;
  /** How often `tick` is called, in milliseconds. */
  tickEvery?: number;
  /** Decides on one message. What it throws is a fault of the whole call. */
  process?(message: Message<F, R>, out: Out<E, O, W>): void;
  /** Decides on a whole batch, in place of `process`. */
  processBatch?(batch: Batch<F, R>, outcome: Outcome<E, O, W>): void;
  /** Called at the interval, also when no message comes. */
  tick?(nowUs: number, out: Emissions<O, W>): void;
  /** Called once, last, when no message will follow. Not called at a swap. */
  finish?(out: Emissions<O, W>): void;
  /** The state that the next version goes on from: anything that JSON has, or bytes; nothing if there is none. */
  snapshot?(): unknown;
  /** Goes on from what `snapshot` gave. An Error refuses it. */
  restore?(state: any): void;
  /** Goes on from the snapshots of all instances there were, with what belongs to its part. */
  restorePart?(snapshots: Snapshot[], part: Part): void;
}

/** What a module exports as `transformer`. */
export interface Transformer {
  init(config: string, facts: [string, string][]): any;
  process(batch: any): any;
  tick(nowUs: number): any;
  finish(): any;
  snapshot(): Uint8Array | null;
  restore(snapshots: Uint8Array[], part: number, parts: number): void;
}

/**
 * Where the plugin runs: `contract`, `host`, `pipeline`, `transform`, `instance`, `instances`, `shadow`; and its limits,
 * `memory_bytes` and `output_bytes`.
 */
export type Facts = Record<string, string | undefined>;

/** Makes a transform. Throws where there is something in it that no plugin has, as where there is no `process`. */
export function transform<
  const F extends Fields = {},
  const E extends Edits = {},
  const O extends string = never,
  const R extends string = never,
  const W extends string = never,
>(plugin: Plugin<F, E, O, R, W>): Transformer;
export function transform<const C extends config.Keys | config.Kind<any>>(
  given: { config?: C },
  make: (config: config.ConfigOf<C>, facts: Facts) => Plugin<any, any, any, any, any>,
): Transformer;

/** A plugin as it is: what TypeScript needs around one that a function returns, to know its fields by name. */
export function plugin<
  const F extends Fields = {},
  const E extends Edits = {},
  const O extends string = never,
  const R extends string = never,
  const W extends string = never,
>(plugin: Plugin<F, E, O, R, W>): Plugin<F, E, O, R, W>;

/** Configurations: what each key holds. The last argument is what it is where the key is not there. */
export namespace config {
  interface Kind<Value> {
    readonly expected: string;
    readonly value?: Value;
  }
  type Keys = Record<string, Kind<any>>;
  type ValueOf<K> = K extends Kind<infer V> ? V : never;
  type ConfigOf<C> = C extends Kind<infer V> ? V : { readonly [Key in keyof C]: ValueOf<C[Key]> };

  class ConfigError extends Error {}
  function text(fallback?: string): Kind<string>;
  function number(fallback?: number): Kind<number>;
  /** A whole number. */
  function integer(fallback?: number): Kind<number>;
  function boolean(fallback?: boolean): Kind<boolean>;
  /** A duration such as "1m30s", in milliseconds; the fallback is written the same way. */
  function duration(fallback?: string): Kind<number>;
  /** A JSON pointer. */
  function pointer(fallback?: string): Kind<string>;
  function oneOf<const T extends string>(texts: readonly T[], fallback?: T): Kind<T>;
  function list<V>(of: Kind<V>, fallback?: V[]): Kind<V[]>;
  /** A table with any keys. */
  function table<V>(of: Kind<V>, fallback?: Record<string, V>): Kind<Record<string, V>>;
  /** A table with these keys. */
  function object<K extends Keys>(keys: K, fallback?: ConfigOf<K>): Kind<ConfigOf<K>>;
  /** Something else: `read` gives its value, or throws. */
  function custom<V>(expected: string, read: (value: any) => V, fallback?: V): Kind<V>;
  /** What may be left out. */
  function optional<V>(of: Kind<V>): Kind<V | undefined>;
  /** Reads a configuration, as `transform` does. */
  function readConfig<C extends Keys | Kind<any>>(keys: C, json: string): ConfigOf<C>;
}

/** Lines in the host's log, under the target `guest`. */
export namespace log {
  function trace(text: unknown): void;
  function debug(text: unknown): void;
  function info(text: unknown): void;
  function warn(text: unknown): void;
  function error(text: unknown): void;
}

/** The plugin's own metrics, `tidemill_guest_<name>` beside the host's. */
export namespace metrics {
  /** Adds to a counter, as a rule 1. */
  function add(counter: string, by?: number): void;
  /** Sets a gauge. */
  function set(gauge: string, value: number): void;
  /** Records a value in a histogram. */
  function observe(histogram: string, value: number): void;
}

/** Values that the host keeps for the transform: they outlive the instance, its faults and swaps. */
export namespace state {
  interface Change {
    key: string;
    /** Its new value, of a text its UTF-8; without one the key is removed. */
    value?: string | Uint8Array | null;
    /** How long it has this value, in milliseconds. */
    ttlMs?: number;
  }
  function get(key: string): Uint8Array | undefined;
  function getMany(keys: string[]): (Uint8Array | undefined)[];
  function set(key: string, value: string | Uint8Array, options?: { ttlMs?: number }): void;
  /** Makes all changes, in their order, or none. */
  function setMany(changes: Change[]): void;
  function remove(key: string): void;
  /** The keys that start with `prefix` and come after `after`, ascending, at most `limit`. */
  function keys(prefix?: string, options?: { after?: string; limit?: number }): string[];
}

/** The host's time, which a replay may set. */
export namespace clock {
  /** The time, in microseconds since the Unix epoch. */
  function nowUs(): number;
}

/** The host's random numbers, which a replay may repeat. Not for secrets. */
export namespace random {
  /** The next number, uniform in [0, 1). */
  function next(): number;
}

/** Requests to the origins that the `allow` of the transform grants. Nothing is async. */
export namespace http {
  interface Options {
    headers?: Record<string, string> | [string, string][];
    body?: string | Uint8Array;
    /** A body as JSON, with its content type. */
    json?: unknown;
    timeoutMs?: number;
  }
  interface Request extends Options {
    method?: string;
    url: string | URL;
  }
  class Response {
    constructor(answer: { status: number; headers?: [string, string][]; body?: string | Uint8Array });
    readonly status: number;
    readonly headers: [string, string][];
    readonly body: Uint8Array;
    /** Whether the status is one of success. */
    readonly ok: boolean;
    /** The same, if its status is one of success; else throws the status. */
    success(): this;
    /** The first value of a header, whose name has any case. */
    header(name: string): string | undefined;
    text(): string;
    json(): any;
  }
  class HttpError extends Error {
    readonly kind: "invalid" | "denied" | "timeout" | "too-large" | "failed";
  }
  function get(url: string | URL, options?: Options): Response;
  function post(url: string | URL, options?: Options): Response;
  function send(request: Request): Response;
  /** Sends all side by side; of each the response, or the error that there is in its place. */
  function sendAll(requests: Request[]): (Response | HttpError)[];
}

/** Texts as bytes of UTF-8. */
export namespace utf8 {
  function encode(text: string): Uint8Array;
  function decode(bytes: ArrayLike<number>): string;
}

/** Values as bytes of JSON; throws where JSON would lose something. */
export namespace json {
  function encode(value: unknown): Uint8Array;
  function decode(json: ArrayLike<number>): any;
}

export interface Closed<T> {
  key: string;
  /** Its start and its end, which is not part of it, in milliseconds. */
  start: number;
  end: number;
  value: T;
  /** False where it was closed before its time. */
  final: boolean;
}

export interface WindowOptions<T, V> {
  /** The total of a window without values. */
  initial(): T;
  /** Adds a value: gives the new total, or changes the one it is given. */
  add(total: T, value: V): T | void;
  /** What totals mean, in words: state of windows that mean something else is refused, and so is that of other sizes. */
  meaning?: string;
  /** How long a window waits for what comes late: a duration, or milliseconds. */
  allowedLateness?: string | number;
  /** How long a key may be silent until its windows are closed. */
  idleClose?: string | number;
  /** How many keys are known at most: the one that was silent longest makes room. */
  maxKeys?: number;
}

/** Windows in event time, of each key. */
export interface Windows<T, V> {
  /** How many values came too late to count. */
  late: number;
  /** How many keys were forgotten because there were too many. */
  forgotten: number;
  /** How many keys are known. */
  readonly size: number;
  /**
   * Counts a value, and gives the windows that are closed now. With `idleClose` it takes when it was received. Where
   * `add` throws, nothing has changed.
   */
  add(key: string, timeMs: number, value: V, receivedUs?: number): Closed<T>[];
  /** Closes the windows of silent keys; for `tick`. */
  closeIdle(nowUs: number): Closed<T>[];
  /** Closes all windows, which are not final; for `finish`. */
  closeAll(): Closed<T>[];
  /**
   * The same, and has `write` emit each to the way out of `finish`. Those for which the call has no room any more are not
   * sent, which the log says, and the metric `windows_unsent` counts.
   */
  closeAll(out: Emissions<any, any>, write: (window: Closed<T>) => void): Closed<T>[];
  /** The state, as JSON has it. */
  snapshot(): object;
  /** Goes on from a state. Throws where it is that of other windows. */
  restore(state: object): void;
  restorePart(snapshots: Snapshot[], part: Part): void;
}

/** Windows of one size, one after the other. */
export function tumbling<T, V>(options: WindowOptions<T, V> & { size: string | number }): Windows<T, V>;
/** Windows of one size, of which one begins every `slide`. */
export function sliding<T, V>(
  options: WindowOptions<T, V> & { size: string | number; slide: string | number },
): Windows<T, V>;
/** Windows that last as long as no `gap` is between two values. `merge` joins the totals of two. */
export function sessions<T, V>(
  options: WindowOptions<T, V> & { gap: string | number; merge(one: T, other: T): T },
): Windows<T, V>;

/** What is dialled. */
export class Dial {
  constructor(dial: { url: string });
  url: string;
  headers: [string, string][];
  subprotocols: string[];
  header(name: string): string | undefined;
  /** Sets a header, in the place of one of this name. */
  setHeader(name: string, value: unknown): void;
  /** Sets a value of the url's query, in the place of one of this name. */
  setQuery(name: string, value: string | number | boolean): void;
  /** Adds a message that is sent as soon as the connection is there. */
  sendFirst(value: unknown): void;
}

export interface Attempt {
  /** 1 for the first since the last connection, or since the start. */
  number: number;
  /** What the last one came to. */
  last?: { outcome: string; detail: string; status: number | null; closeCode: number | null; lastedMs: number };
  facts: Facts;
}

/** An error of `beforeConnect` that says when to try again: not before `afterMs` milliseconds. A time below 0 is 0. */
export class Later extends Error {
  constructor(reason: string, afterMs: number);
  readonly afterMs: number;
}

export interface Connector {
  /** How often `tick` is called while the connection stands, in milliseconds. */
  tickEvery?: number;
  /** Changes what is about to be dialled. An error refuses to dial now. */
  beforeConnect(dial: Dial, attempt: Attempt): void;
  tick?(nowUs: number): void;
}

/** What a module exports as `dialler`. */
export interface Dialler {
  init(config: string, facts: [string, string][]): any;
  beforeConnect(attempt: any): any;
  tick(nowUs: number): void;
}

/** Makes a connector. Throws where there is something in it that no connector has, as where there is no `beforeConnect`. */
export function connector(connector: Connector): Dialler;
export function connector<const C extends config.Keys>(
  given: { config?: C },
  make: (config: config.ConfigOf<C>, facts: Facts) => Connector,
): Dialler;
