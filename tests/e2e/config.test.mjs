// The config file as an operator meets it.
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { BIN, run, startChronos, tempDir } from './lib/chronos.mjs';
import { test } from './lib/harness.mjs';

const hints = (node) => node.stderr.split('\n').filter((line) => line.includes('listening on loopback only'));

/** A node with nothing but this file and free ports. */
async function withFile(text) {
    const file = join(tempDir(), 'chronos.conf');
    writeFileSync(file, text);
    return startChronos(['--config', file]);
}

test('a node on loopback says once that others cannot connect, and what to set', async () => {
    const node = await withFile('');
    assert.equal(hints(node).length, 1, node.stderr);
    const [line] = hints(node);
    assert.match(line, /clients on other machines can't connect/);
    assert.match(line, /`listener 1883`/);
    assert.match(line, /--address/);
    assert.match(line, /allow_anonymous/);
    // What it says to set is accepted as it stands there.
    const file = join(tempDir(), 'advice.conf');
    writeFileSync(file, 'listener 1883\nallow_anonymous true\n');
    const tried = await run(BIN, ['single-node', '--config', file, '--test-config']);
    assert.equal(tried.code, 0, tried.stderr);
});

test('a node that others can reach does not say it', async () => {
    const node = await withFile('allow_anonymous true\nlistener 0 0.0.0.0\n');
    assert.deepEqual(hints(node), []);
});

test('a mistake in a file ends the start: file, line, key and what was meant', async () => {
    const file = join(tempDir(), 'chronos.conf');
    writeFileSync(file, 'loops 1\n\nmax_queud_messages 5\n');
    const tried = await run(BIN, ['single-node', '--config', file]);
    assert.notEqual(tried.code, 0);
    assert.equal(
        tried.stderr.split('\n')[0],
        `chronos: ${file}:3: unknown key max_queud_messages; did you mean max_queued_messages?`,
    );
});
