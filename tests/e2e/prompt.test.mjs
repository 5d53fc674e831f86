// The SQL prompt as a person at a terminal meets it.
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from './lib/harness.mjs';
import { BIN, run, startChronos, tempDir } from './lib/chronos.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const PROMPT = 'chronos> ';
const CTRL_C = '\u0003', CTRL_D = '\u0004';

async function type(steps, args, timeout = 40) {
    const dir = tempDir('prompt-');
    const script = join(dir, 'script.json');
    writeFileSync(script, JSON.stringify({ steps, timeout }));
    const went = await run('python3', [join(here, 'pty_prompt.py'), script, BIN, ...args],
        { timeoutMs: (timeout + 10) * 1000, env: { HOME: dir } });
    let result = { output: went.stdout, failure: went.stderr };
    try { result = JSON.parse(went.stdout); } catch { /* said below */ }
    assert.equal(result.failure, null, `${result.failure}\n${result.output}`);
    return result;
}

test('statements over several lines, framed tables, \\d, \\timing, errors, \\q', async () => {
    const node = await startChronos();
    const { code, output } = await type([
        [PROMPT, 'CREATE TABLE room (ts TIMESTAMP,\n'],
        ['-> ', 'v FLOAT) WITH TOPIC=\'room/x\';\n'],
        [PROMPT, 'INSERT INTO room VALUES (\'2024-01-01\', 21.5), (\'2024-01-02\', NULL);\n'],
        [PROMPT, 'SELECT count(*) AS n,\n'],
        ['-> ', 'max(v) AS hot FROM room;\n'],
        ['\\+-+\\+-+\\+\n\\| *n *\\| *hot *\\|\n\\+-+\\+-+\\+\n\\| *2 *\\| *21\\.5 *\\|\n\\+-+\\+-+\\+.*' + PROMPT, '\\d\n'],
        ['readings.*room.*' + PROMPT, '\\d room\n'],
        ['ts.*TIMESTAMP.*v.*FLOAT.*' + PROMPT, '\\timing\n'],
        [PROMPT, 'SELECT 1;\n'],
        ['\\d+(\\.\\d+)? ?(us|µs|ms|s).*' + PROMPT, 'SELECT nope;\n'],
        ['ERROR 42703: [^\n]*nope.*' + PROMPT, 'SELECT \'a;b\' AS quoted;\n'],
        ['a;b.*' + PROMPT, '\\q\n'],
    ], ['client', '-p', String(node.port)]);
    assert.ok(code === 0 || code === 1, output);
    assert.deepEqual(await node.rows('SELECT count(*) FROM room'), [[2]]);
});

test('Ctrl-C drops what was typed, Ctrl-D ends', async () => {
    const node = await startChronos();
    const { code } = await type([
        [PROMPT, 'SELECT this is not finished\n'],
        ['-> ', CTRL_C],
        [PROMPT, 'SELECT 42 AS answer;\n'],
        ['42.*' + PROMPT, CTRL_D],
    ], ['client', '-p', String(node.port)]);
    assert.equal(code, 0);
});

test('Ctrl-C cancels the running query', async () => {
    const node = await startChronos();
    await node.rows('CREATE TABLE big (i INT)');
    for (let from = 0; from < 400000; from += 20000)
        await node.rows(`INSERT INTO big VALUES ${Array.from({ length: 20000 }, (_, i) => `(${from + i})`).join(',')}`);
    // Some seconds of work, if nobody ends it.
    const heavy = Array.from({ length: 150 }, (_, k) => `sqrt(abs(sin(i + ${k})))`).join(' + ');
    const { output } = await type([
        [PROMPT, '\\timing\n'],
        [PROMPT, `SELECT max(${heavy}) FROM big;\n`],
        ['FROM big;', CTRL_C, [`${node.admin}/metrics`, '^chronos_queries_running [1-9]']],
        ['57014.*' + PROMPT, 'SELECT 42 AS answer;\n'],
        ['42.*' + PROMPT, '\\q\n'],
    ], ['client', '-p', String(node.port)]);
    assert.match(output, /57014/);
});

test('single-node on a terminal: the prompt over its own port; \\q stops the node', async () => {
    const dir = tempDir();
    const { code, output } = await type([
        ['ready mqtt=127.0.0.1:\\d+ admin=127.0.0.1:\\d+.*' + PROMPT, 'INSERT INTO readings (device_id, value) VALUES (\'p\', 3);\n'],
        [PROMPT, 'SELECT device_id, value FROM readings;\n'],
        ['\\| *p *\\| *3.*' + PROMPT, '\\q\n'],
    ], ['single-node', '--data-dir', join(dir, 'data'), '--address', '127.0.0.1:0']);
    assert.equal(code, 0, output);
    assert.equal((await run(BIN, ['check', '--data-dir', join(dir, 'data')])).code, 0);
});

test('\\kick ends a client and says when there is none', async () => {
    const node = await startChronos();
    const victim = await node.client({ clientId: "o'neill 7" });
    const closed = new Promise((resolve) => victim.on('close', resolve));
    await type([
        [PROMPT, "\\kick o'neill 7\n"],
        ['KILL CLIENT.*' + PROMPT, '\\kick nobody\n'],
        ['ERROR 42704: no client "nobody".*' + PROMPT, '\\kick\n'],
        ['takes a client id.*' + PROMPT, '\\?\n'],
        ['\\\\kick CLIENT.*' + PROMPT, '\\q\n'],
    ], ['client', '-p', String(node.port)]);
    await closed;
});
