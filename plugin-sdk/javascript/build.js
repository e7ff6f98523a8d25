#!/usr/bin/env node
// Makes a plugin of JavaScript or TypeScript files: `build.js MAIN -o OUT.wasm`.
//
// esbuild bundles them with the SDK, and componentize-qjs makes a component of the bundle, in the smallest world that
// has what the bundle imports of the host. Both packages are looked for beside MAIN, and in `--tools DIR`.

import { readFileSync, writeFileSync } from "node:fs";
import { builtinModules, createRequire } from "node:module";
import { dirname, extname, join, relative, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { originsOf, thrownIn } from "./src/build/sources.js";
import { firstMissing } from "./src/build/used.js";
import { worldOf } from "./src/build/world.js";
import { missing } from "./src/missing.js";

const HERE = dirname(fileURLToPath(import.meta.url));
const PACKAGE = JSON.parse(readFileSync(join(HERE, "package.json"), "utf8"));

/** Files that are looked into. */
const SCRIPT = /\.[cm]?[jt]sx?$/;
/** What there is in the place of a system. */
const OFFERED = "what the host offers is config, http, state, metrics, clock, random and log of tidemill-plugin";

/** What cannot be built, in words for the person who builds it. */
class BuildError extends Error {}

async function build() {
  const options = { output: { type: "string", short: "o" }, tools: { type: "string" } };
  const { values, positionals } = parseArgs({ options, allowPositionals: true });
  const [main] = positionals;
  if (main === undefined || values.output === undefined || positionals.length > 1) {
    throw new BuildError("usage: build.js MAIN -o OUT.wasm [--tools DIR]");
  }
  const folders = [dirname(resolve(main)), ...(values.tools ? [resolve(values.tools)] : []), HERE];
  const { code, world, origins } = await bundled(await tool("esbuild", folders), main);
  const { componentize } = await tool("componentize-qjs", folders);
  let component;
  try {
    const witPath = join(HERE, "wit");
    ({ component } = await componentize({ jsSource: code, witPath, world, stubWasi: true, sync: true }));
  } catch (error) {
    const thrown = thrownIn(`${error.message}`, origins);
    throw thrown === undefined ? error : new BuildError(thrown);
  }
  writeFileSync(values.output, component);
}

/** One module of all that MAIN imports, with the table by which errors find their files and lines. */
async function bundled(esbuild, main) {
  const folder = process.cwd();
  let result;
  try {
    result = await esbuild.build({
      entryPoints: [main],
      bundle: true,
      write: false,
      metafile: true,
      sourcemap: "external",
      sourcesContent: false,
      outdir: folder,
      format: "esm",
      target: "es2023",
      conditions: ["tidemill"],
      external: ["tidemill:*"],
      inject: [join(HERE, "src/build/globals.js")],
      define: { "Math.random": "tidemillRandom" },
      plugins: [ownPackage],
      logLevel: "silent",
    });
  } catch (error) {
    throw await unbundled(esbuild, main, error);
  }
  const isOwn = (source) =>
    !source.startsWith(relative(folder, join(HERE, "src"))) && !source.includes("node_modules");
  await refuseMissing(esbuild, Object.keys(result.metafile.inputs).filter(isOwn));
  const file = (end) => result.outputFiles.find(({ path }) => path.endsWith(end));
  const [output] = Object.entries(result.metafile.outputs).filter(([path]) => path.endsWith(".js"));
  const { imports, exports } = output[1];
  const world = worldOf(imports.map(({ path }) => path), exports);
  if (world === undefined) {
    throw new BuildError(`${main} exports neither \`transformer = transform(...)\` nor \`dialler = connector(...)\``);
  }
  const map = JSON.parse(file(".js.map").text);
  const origins = originsOf(map, isOwn);
  // Behind the bundle, where it moves no line.
  return { code: `${file(".js").text}\nglobalThis.tidemillSources = ${JSON.stringify(origins)};\n`, world, origins };
}

/** What would only fail when it is reached. */
async function refuseMissing(esbuild, files) {
  for (const file of files.filter((name) => SCRIPT.test(name))) {
    const found = await firstMissing(esbuild, readFileSync(file, "utf8"), extname(file).replace(/^\.[cm]?/, ""));
    if (found) throw new BuildError(`${file}:${found.line}: ${missing(found.name)}`);
  }
}

/** The first mistake with its place, and all that esbuild says. */
async function unbundled(esbuild, main, error) {
  const [first] = error.errors ?? [];
  if (first === undefined) return new BuildError(`${main} cannot be bundled: ${error.message}`);
  const [, name] = /^Could not resolve "(?:node:)?([^"/]+)/.exec(first.text) ?? [];
  if (builtinModules.includes(name)) {
    first.text = `${name} is a module of Node.js, and a plugin has no system: ${OFFERED}`;
    first.notes = [];
  } else if (name !== undefined && name !== "." && name !== "..") {
    first.text += `: it is not installed, which \`npm install ${name}\` does in the folder of the plugin`;
    first.notes = [];
  }
  const { file, line, column } = first.location ?? {};
  const place = file === undefined ? "" : `${file}:${line}:${column + 1}: `;
  const said = await esbuild.formatMessages(error.errors, { kind: "error", color: false });
  return new BuildError(`${place}${first.text}\n${said.join("")}`);
}

/** The SDK that builds is the one that the plugin imports. */
const ownPackage = {
  name: PACKAGE.name,
  setup(esbuild) {
    esbuild.onResolve({ filter: new RegExp(`^${PACKAGE.name}$`) }, () => ({
      path: join(HERE, PACKAGE.exports["."].default),
      sideEffects: false,
    }));
  },
};

async function tool(name, folders) {
  for (const folder of folders) {
    try {
      const module = await import(pathToFileURL(createRequire(join(folder, "_")).resolve(name)));
      return module.default ?? module;
    } catch (error) {
      if (error.code !== "MODULE_NOT_FOUND" && error.code !== "ERR_MODULE_NOT_FOUND") throw error;
    }
  }
  throw new BuildError(`${name} is not installed: npm install --save-dev ${name}@${PACKAGE.peerDependencies[name]}`);
}

try {
  await build();
} catch (error) {
  console.error(error instanceof BuildError ? `error: ${error.message}` : error);
  process.exitCode = 1;
}
