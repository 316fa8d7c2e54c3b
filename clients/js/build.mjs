/** src/ → dist/: one readable module, one minified, and the types. Fails where it has grown too large. */
import { execFileSync } from "node:child_process";
import { readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { gzipSync } from "node:zlib";

import { build } from "esbuild";

/** Bytes, minified and gzipped: what a page pays. */
const LIMIT = 6 * 1024;

process.chdir(import.meta.dirname);
rmSync("dist", { recursive: true, force: true });
const tsc = createRequire(import.meta.url).resolve("typescript/lib/tsc.js");
execFileSync(process.execPath, [tsc, "--emitDeclarationOnly"], { stdio: "inherit" });
const options = { entryPoints: ["src/index.ts"], bundle: true, format: "esm", target: "es2022" };
await build({ ...options, outfile: "dist/index.js" });
await build({ ...options, outfile: "dist/fairlead.min.js", minify: true });

const size = gzipSync(readFileSync("dist/fairlead.min.js"), { level: 9 }).length;
console.log(JSON.stringify({ gzipped: size, limit: LIMIT }));
if (size > LIMIT) process.exitCode = 1;
