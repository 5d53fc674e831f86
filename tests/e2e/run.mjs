// Runs the end-to-end tests: every *.test.mjs here, one after the other, against $CHRONOS.
//
//   node run.mjs [part of a file name]...     FILTER=regex picks tests by name
//
// Each file calls test(name, fn) of lib/harness.mjs. Lines on stdout: `ok NAME`, `not ok NAME`,
// `skip NAME why`; everything else is on stderr. Exit code 1 when one failed.
import { readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { runTests } from './lib/harness.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const wanted = process.argv.slice(2);
const files = readdirSync(here)
    .filter((f) => f.endsWith('.test.mjs'))
    .filter((f) => wanted.length === 0 || wanted.some((w) => f.includes(w)))
    .sort();
let failed = 0;
for (const file of files) {
    const group = file.replace('.test.mjs', '');
    try {
        await import(pathToFileURL(join(here, file)));
    } catch (err) {
        failed++;
        console.log(`not ok ${group}: it can't be loaded`);
        console.error(err?.stack ?? err);
        continue;
    }
    failed += await runTests(group);
}
process.exit(failed ? 1 : 0);
