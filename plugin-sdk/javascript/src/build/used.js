// Where the plugin's own files use what a plugin has not.

import { MISSING } from "../missing.js";
import { originsOf } from "./sources.js";

const MARK = "tidemillMissing_";

/** What is put in the place of each name where it is none of the file's own; esbuild knows that. */
const DEFINE = {
  ...Object.fromEntries(MISSING.map((name) => [name, MARK + name])),
  // This one is always there.
  "process.env.NODE_ENV": '""',
};

/** The first name that a file uses without asking for its `typeof`, and the line; undefined if there is none. */
export async function firstMissing(esbuild, source, loader) {
  const { code, map } = await esbuild.transform(source, { define: DEFINE, loader, sourcemap: true, logLevel: "silent" });
  const isAskedFor = (name) => new RegExp(`typeof ${MARK}${name}\\b`).test(code);
  const lines = code.split("\n").map((line) => line.match(new RegExp(`\\b${MARK}(\\w+)`))?.[1]);
  const at = lines.findIndex((name) => name !== undefined && !isAskedFor(name));
  if (at < 0) return undefined;
  const [, line] = originsOf(JSON.parse(map), () => true).lines[at];
  return { name: lines[at], line };
}
