/** Where a line of the bundle is in the plugin's own files, by the table that the build leaves; undefined if it is not. */
export function placeOf(_file, line) {
  const { files = [], lines = [] } = globalThis.tidemillSources ?? {};
  const [source, origin] = lines[line - 1] || [];
  return source === undefined ? undefined : `${files[source]}:${origin}`;
}
