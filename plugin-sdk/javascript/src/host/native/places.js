import { relative } from "node:path";
import { fileURLToPath } from "node:url";

/** What is in the folder of a plugin, or beside it, and not its own. */
const NOT_OWN = /^(\.\.|sdk|node_modules)(\/|$)/;

/** Where a line is in the plugin's own files, those below the folder in which its tests run; undefined if it is not. */
export function placeOf(file, line) {
  if (file.startsWith("node:")) return undefined;
  const path = relative(process.cwd(), file.startsWith("file:") ? fileURLToPath(file) : file);
  return NOT_OWN.test(path) ? undefined : `${path}:${line}`;
}
