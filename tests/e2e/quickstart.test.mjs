// The first minute of a new user: publish with mosquitto_pub, query with the CLI and over MQTT.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { test, cleanup, until } from './lib/harness.mjs';
import { run, startChronos } from './lib/chronos.mjs';

const at = (node) => ['-h', '127.0.0.1', '-p', String(node.port)];

test('a published reading is a row', async () => {
    const node = await startChronos();
    const pub = await run('mosquitto_pub', [...at(node), '-q', '1', '-t', 'sensors/esp-001/temp', '-m', '21.5']);
    assert.equal(pub.code, 0, pub.stderr);
    const cli = await node.cli(['-e', 'SELECT device_id, metric, value FROM readings']);
    assert.equal(cli.code, 0, cli.stderr);
    assert.match(cli.stdout, /esp-001 *\| *temp *\| *21\.5/);
});

test('it survives kill -9', async () => {
    const node = await startChronos();
    await run('mosquitto_pub', [...at(node), '-q', '1', '-t', 'sensors/esp-001/temp', '-m', '21.5']);
    await node.restart();
    assert.deepEqual(await node.rows('SELECT device_id, metric, value FROM readings'), [['esp-001', 'temp', 21.5]]);
});

test('mosquitto_rr prints JSON', async () => {
    const node = await startChronos();
    await run('mosquitto_pub', [...at(node), '-q', '1', '-t', 'sensors/a/t', '-m', '1']);
    const rr = await run('mosquitto_rr', [...at(node), '-V', '5', '-t', '$chronos/sql', '-e', 'reply',
        '-m', 'SELECT count(*) FROM readings']);
    assert.equal(rr.code, 0, rr.stderr);
    const answer = JSON.parse(rr.stdout);
    assert.deepEqual(answer.rows, [[1]]);
    assert.equal(answer.columns[0].type, 'INT');
    assert.equal(answer.row_count, 1);
    assert.equal(typeof answer.elapsed_us, 'number');
});

test('a 3.1.1 pair on $chronos/sql/x and $chronos/result/x', async () => {
    const node = await startChronos();
    await run('mosquitto_pub', [...at(node), '-q', '1', '-t', 'sensors/a/t', '-m', '2']);
    // Line by line: its SUBACK is to be seen when it comes.
    const sub = spawn('stdbuf', ['-oL', 'mosquitto_sub', ...at(node), '-V', '311', '-d', '-q', '1', '-C', '1', '-t', '$chronos/result/x']);
    cleanup(() => sub.kill('SIGKILL'));
    let out = '';
    sub.stdout.on('data', (text) => (out += text));
    await until('SUBACK', () => out.includes('Subscribed (mid'));
    await run('mosquitto_pub', [...at(node), '-V', '311', '-q', '1', '-t', '$chronos/sql/x', '-m', 'SELECT sum(value) FROM readings']);
    await until('the answer', () => out.includes('"row_count":1'));
    assert.match(out, /"rows":\[\[2(\.0)?\]\]/);
});
