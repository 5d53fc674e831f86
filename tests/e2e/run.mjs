// Runs the end-to-end tests: every *.test.mjs here, each in a process of its own (lib/one_file.mjs),
// against $CHRONOS.
//
//   node run.mjs [part of a file name]...     FILTER=regex picks tests by name
//                                             JOBS=n     that many files at a time (1)
//
// Each file calls test(name, fn) of lib/harness.mjs. Lines on stdout: `ok NAME`, `not ok NAME`,
// `skip NAME why`, a file's all together when it has ended; everything else is on stderr. Exit code
// 1 when one failed.
import { spawn } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/* The longest first, so that none of them is left alone at the end. */
const LONGEST = ['cluster_ops', 'cluster_faults', 'mqtt', 'cluster_sessions', 'denial', 'admin', 'cluster_pubsub',
    'snapshot', 'cluster_crash'];

const here = dirname(fileURLToPath(import.meta.url));
const wanted = process.argv.slice(2);
const groups = readdirSync(here)
    .filter((f) => f.endsWith('.test.mjs'))
    .filter((f) => wanted.length === 0 || wanted.some((w) => f.includes(w)))
    .map((f) => f.replace('.test.mjs', ''))
    .sort((a, b) => rank(a) - rank(b) || (a < b ? -1 : 1));

function rank(group) {
    const place = LONGEST.indexOf(group);
    return place < 0 ? LONGEST.length : place;
}

/** Runs one file to its end; what it printed is printed then. Resolves to: did all its tests pass. */
function runFile(group) {
    return new Promise((resolve) => {
        const started = Date.now();
        const child = spawn(process.execPath, [join(here, 'lib', 'one_file.mjs'), join(here, `${group}.test.mjs`)],
            { stdio: ['ignore', 'pipe', 'pipe'] });
        const out = [], err = [];
        child.stdout.on('data', (part) => out.push(part));
        child.stderr.on('data', (part) => err.push(part));
        child.on('close', (code, signal) => {
            const lines = Buffer.concat(out).toString();
            process.stdout.write(lines);
            process.stderr.write(Buffer.concat(err));
            /* A process that ends by itself must not pass for tests that passed */
            if (code !== 0 && !/^not ok /m.test(lines)) console.log(`not ok ${group}: its process ended with ${code ?? signal}`);
            console.error(`== ${group}: ${((Date.now() - started) / 1000).toFixed(1)} s`);
            resolve(code === 0);
        });
    });
}

let passed = true;
await Promise.all(Array.from({ length: Number(process.env.JOBS ?? 1) }, async () => {
    for (let group; (group = groups.shift());) passed = (await runFile(group)) && passed;
}));
process.exitCode = passed ? 0 : 1;
