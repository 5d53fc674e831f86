// One file of tests in this process: node one_file.mjs FILE. See ../run.mjs.
import { basename, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { runTests } from './harness.mjs';

const file = resolve(process.argv[2]);
const group = basename(file).replace('.test.mjs', '');
let failed = 0;
try {
    await import(pathToFileURL(file));
    failed = await runTests(group);
} catch (err) {
    failed = 1;
    console.log(`not ok ${group}: it can't be loaded`);
    console.error(err?.stack ?? err);
}
/* Not by itself: a connection that a failed test left open would keep this process */
process.exit(failed ? 1 : 0);
