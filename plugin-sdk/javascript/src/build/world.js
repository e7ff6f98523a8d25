// The world that a component is built for: it imports all of it, used or not.

const CONTRACT = "tidemill:plugin/";

/** The smallest world that has what a module imports; undefined if its exports are no plugin. */
export function worldOf(imports, exports) {
  const host = imports.filter((path) => path.startsWith(CONTRACT));
  const hasHttp = host.some((path) => path.startsWith(`${CONTRACT}http@`));
  if (exports.includes("transformer")) {
    return hasHttp ? "transform-http" : host.length > 0 ? "transform" : "transform-pure";
  }
  if (exports.includes("dialler")) return hasHttp ? "connector-http" : "connector";
  return undefined;
}
