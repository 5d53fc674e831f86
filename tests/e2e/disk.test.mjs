// A disk that hangs, fails or fills up: nothing is acknowledged that is not durable.
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test, until, skip } from './lib/harness.mjs';
import { BUILD, Chronos, run, tempDir } from './lib/chronos.mjs';

const asan = BUILD.includes('asan');

async function nodeOnSickDisk(args = []) {
    if (asan) skip('LD_PRELOAD before the sanitizer runtime');
    const dir = tempDir();
    const control = join(dir, 'control');
    writeFileSync(control, '');
    const node = new Chronos(join(dir, 'data'), args, {
        LD_PRELOAD: join(BUILD, 'tests', 'libshim_disk.so'),
        SHIM_CONTROL: control,
    });
    await node.start();
    return { node, tell: (words) => writeFileSync(control, words) };
}

test('no PUBACK leaves while fdatasync hangs; others are read and queries answered', async () => {
    const { node, tell } = await nodeOnSickDisk();
    const before = await node.client();
    await before.publishAsync('sensors/a/t', '1', { qos: 1 });
    const other = await node.client();
    await other.subscribeAsync('plain/#');
    tell('hold-sync');

    let acked = 0;
    const held = [];
    for (let i = 0; i < 500; i++)
        held.push(before.publishAsync('sensors/a/t', String(i), { qos: 1 }).then(() => acked++));
    // Another connection, all the while: plain messages travel, SQL is answered.
    for (let i = 0; i < 20; i++) {
        const got = new Promise((resolve) => other.once('message', (t, p) => resolve(p.toString())));
        await other.publishAsync('plain/x', String(i), { qos: 1 });
        assert.equal(await got, String(i));
        assert.deepEqual(await node.rows('SELECT count(*) FROM readings'), [[1]]);
    }
    assert.equal(acked, 0, 'acknowledged before the sync returned');
    tell('');
    await Promise.all(held);
    assert.equal(acked, 500);
    assert.deepEqual(await node.rows('SELECT count(*) FROM readings'), [[501]]);
});

test('after a failed fdatasync nothing is acknowledged; the restart has what was', async () => {
    const { node, tell } = await nodeOnSickDisk();
    const client = await node.client();
    await client.publishAsync('sensors/a/t', '1', { qos: 1 });
    tell('fail-sync');
    let acked = false;
    client.publishAsync('sensors/a/t', '2', { qos: 1 }).then(() => (acked = true), () => {});
    const { code } = await node.exited;
    assert.notEqual(code, 0);
    assert.equal(acked, false);
    assert.match(node.stderr, /log can't be trusted/);
    tell('');
    await node.restart();
    const [[count]] = await node.rows('SELECT count(*) FROM readings WHERE value = 1');
    assert.equal(count, 1);
});

test('a full disk: writers wait, reads go on, and it recovers when there is room', async () => {
    const { node, tell } = await nodeOnSickDisk();
    const client = await node.client();
    await client.publishAsync('sensors/a/t', '1', { qos: 1 });
    tell('full');
    let acked = false;
    const second = client.publishAsync('sensors/a/t', '2', { qos: 1 }).then(() => (acked = true));
    await until('the disk to be seen full', async () => /disk is full/.test(node.stderr));
    assert.deepEqual(await node.rows('SELECT count(*) FROM readings'), [[1]]);
    const insert = await node.sql(`INSERT INTO readings (device_id, value) VALUES ('x', 1)`);
    assert.equal(insert.error?.code, '53100');
    assert.equal(acked, false);
    tell('');
    await second;
    assert.deepEqual(await node.rows('SELECT count(*) FROM readings'), [[2]]);
    await node.restart();
    assert.deepEqual(await node.rows('SELECT count(*) FROM readings'), [[2]]);
});

test('kill -9 on a full disk loses nothing that was acknowledged', async () => {
    const { node, tell } = await nodeOnSickDisk();
    const client = await node.client();
    for (let i = 0; i < 100; i++) await client.publishAsync('sensors/a/t', String(i), { qos: 1 });
    tell('full');
    client.publishAsync('sensors/a/t', '100', { qos: 1 }).catch(() => {});
    await until('the disk to be seen full', async () => /disk is full/.test(node.stderr));
    await node.kill();
    tell('');
    await node.restart();
    const [[count]] = await node.rows('SELECT count(*) FROM readings WHERE value < 100');
    assert.equal(count, 100);
    assert.equal((await run(process.env.CHRONOS, ['--version'])).code, 0);
});

test('told to stop on a full disk: it gives up soon, with an error; the restart has what was', async () => {
    const { node, tell } = await nodeOnSickDisk();
    const client = await node.client();
    for (let i = 0; i < 50; i++) await client.publishAsync('sensors/a/t', String(i), { qos: 1 });
    tell('full');
    let acked = 0;
    for (let i = 0; i < 50; i++)
        client.publishAsync('sensors/a/t', '100', { qos: 1 }).then(() => acked++, () => {});
    await until('the disk to be seen full', async () => /disk is full/.test(node.stderr));
    const { code } = await node.stop();
    assert.ok(code > 0, `exit code ${code}`);
    assert.match(node.stderr, /none of it was acknowledged/);
    assert.equal(acked, 0);
    tell('');
    await node.restart();
    const [[count]] = await node.rows('SELECT count(*) FROM readings WHERE value < 100');
    assert.equal(count, 50);
});
