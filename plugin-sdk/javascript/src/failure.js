// What is thrown becomes a text that names the plugin's own file and line.

/** A frame of a stack: what was called, and where. */
const FRAME = /^\s*at (?:(.*?) \()?([^()\s]+?):(\d+)(?::(\d+))?\)?\s*$/;
/** More of a stack only repeats where the call came from. */
const MOST_FRAMES = 8;

/** Runs a callback; what it throws is thrown as the text of a fault, with where it was thrown. */
export function guarded(call) {
  try {
    return settled(call());
  } catch (error) {
    throw faultText(error);
  }
}

/** The same, where an `Error` is how the plugin refuses something: its text alone says why. */
export function refusing(call) {
  try {
    return settled(call());
  } catch (error) {
    throw isPlain(error) ? error.message : faultText(error);
  }
}

/** What a callback returned. A promise would never be waited for. */
export function settled(result) {
  if (result instanceof Promise) {
    throw new TypeError("the function is async, and nothing waits for it: requests and state are called without await");
  }
  return result;
}

/** The text of whatever was thrown. */
export function faultText(error) {
  if (!(error instanceof Error)) return typeof error === "string" ? error : describe(error);
  const frames = stack(error.stack ?? "");
  const said = isOfBigInt(error) ? `${error}: a BigInt goes with no number and into no JSON, so write Number(x)` : `${error}`;
  return frames.length === 0 ? said : `${said} (${frames.join(", ")})`;
}

/** Whether a BigInt was used where a number or JSON is wanted, in the words of the engines. */
function isOfBigInt(error) {
  return error instanceof TypeError && /big ?int/i.test(error.message);
}

/** Whether it was thrown to refuse something, and not by a mistake of the code. */
function isPlain(error) {
  return error instanceof Error && (error.constructor === Error || error.name === "ConfigError");
}

function describe(error) {
  try {
    return JSON.stringify(error) ?? String(error);
  } catch {
    return String(error);
  }
}

/** The frames in the plugin's own files. The build leaves a table of the files and lines that the bundle is made of. */
function stack(text) {
  const { files = [], lines = [] } = globalThis.tidemillSources ?? {};
  const frames = [];
  for (const line of text.split("\n")) {
    const [, name, file, number] = FRAME.exec(line) ?? [];
    if (file === undefined) continue;
    const [source, origin] = lines[number - 1] || [];
    if (source === undefined) continue;
    frames.push(`at ${name ? `${name} ` : ""}${files[source]}:${origin}`);
  }
  return frames.slice(0, MOST_FRAMES);
}
