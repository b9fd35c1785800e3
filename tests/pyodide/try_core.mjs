// Runs a Python script under Pyodide, in node, with folders and files of this machine beside it.
//
//     node try_core.mjs FOLDER_WITH_NODE_MODULES SCRIPT '{"/src": "/a/folder", ...}' ARGUMENTS...
import { readFileSync, statSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [folder, script, places, ...args] = process.argv.slice(2);
const found = createRequire(join(folder, "package.json")).resolve("pyodide/pyodide.mjs");
const { loadPyodide } = await import(pathToFileURL(found));
const python = await loadPyodide();

for (const [there, here] of Object.entries(JSON.parse(places))) {
  if (statSync(here).isDirectory()) {
    python.FS.mkdirTree(there);
    python.mountNodeFS(there, here);
  } else {
    python.FS.mkdirTree(there.slice(0, there.lastIndexOf("/")));
    python.FS.writeFile(there, readFileSync(here));
  }
}
python.pyimport("sys").argv = python.toPy([script, ...args]);
try {
  python.runPython(readFileSync(script, "utf8"), { filename: script });
  // What is awaited here runs in a task of the browser's loop; what came before, in none.
  await python.globals.get("main")?.();
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
}
