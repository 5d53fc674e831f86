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
    // Nor is there room for a checkpoint: said once, and in /health, until there is.
    const health = async () => JSON.parse((await node.http('/health')).text);
    assert.equal((await health()).checkpoint_no_room, false);
    node.signal('SIGUSR1');
    await until('the checkpoint to find no room', async () => (await health()).checkpoint_no_room);
    const failed = async () => (await node.metrics()).chronos_checkpoints_failed_total;
    node.signal('SIGUSR1');
    await until('another to be tried', async () => (await failed()) > 1);
    assert.equal(node.stderr.match(/no room for a checkpoint/g).length, 1);
    assert.doesNotMatch(node.stderr, /commit failed/);
    tell('');
    await second;
    node.signal('SIGUSR1');
    await until('there to be room', async () => !(await health()).checkpoint_no_room);
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

const ack = (word) => ({ qos: 1, properties: { userProperties: { ack: word } } });

async function tables(node) {
    for (const [name, topic, option] of [
        ['safe', 'c/safe', ''],
        ['near', 'c/near', ', ACK=local'],
        ['fast', 'c/fast', ', ACK=memory'],
        ['all_fast', 'c/+', ', ACK=memory'],
    ]) {
        const made = await node.sql(`CREATE TABLE ${name} (value INT) WITH TOPIC='${topic}'${option}`);
        assert.ok(!made.error, JSON.stringify(made));
    }
}

// One connection each, so that none waits for the order of another's acknowledgements.
async function publishHeld(node, list) {
    const answers = [];
    for (const [topic, options] of list) {
        const client = await node.client();
        const answer = { acked: false, client };
        answer.done = client.publishAsync(topic, '1', options).then(() => (answer.acked = true), () => {});
        answers.push(answer);
    }
    return answers;
}

test('ACK: while fdatasync hangs PUBACKs of class memory leave, and no others', async () => {
    const { node, tell } = await nodeOnSickDisk();
    await tables(node);
    tell('hold-sync');
    const [slow] = await publishHeld(node, [['c/safe', { qos: 1 }]]);
    const fast = await publishHeld(node, [
        ['c/fast', { qos: 1 }],
        ['c/other', { qos: 1 }],
        ['c/fast', ack('memory')],
    ]);
    const held = await publishHeld(node, [
        ['c/near', { qos: 1 }],
        ['c/safe', ack('memory')], // not below the table's class
        ['c/fast', ack('quorum')],
        ['c/fast', ack('local')],
        ['c/fast', { qos: 2 }],
    ]);
    await Promise.all(fast.map((a) => a.done));
    assert.ok(fast.every((a) => a.acked));
    // Those that came later on a connection of its own are answered; these could have been.
    const [last] = await publishHeld(node, [['c/fast', { qos: 1 }]]);
    await last.done;
    assert.ok(last.acked);
    assert.ok(!slow.acked && held.every((a) => !a.acked), JSON.stringify(held.map((a) => a.acked)));
    // In order on one connection: behind a quorum message memory waits, too.
    let order = [];
    const one = await node.client();
    const first = one.publishAsync('c/safe', '2', { qos: 1 }).then(() => order.push('safe'));
    const second = one.publishAsync('c/fast', '2', { qos: 1 }).then(() => order.push('fast'));
    const [mark] = await publishHeld(node, [['c/fast', { qos: 1 }]]);
    await mark.done;
    assert.deepEqual(order, []);
    // Nobody sees what could still vanish.
    assert.deepEqual(await node.rows('SELECT count(*) FROM fast'), [[0]]);
    tell('');
    await Promise.all([first, second, slow.done, ...held.map((a) => a.done)]);
    assert.deepEqual(order, ['safe', 'fast']);
    assert.ok(slow.acked && held.every((a) => a.acked));
    await until('all rows', async () => (await node.rows('SELECT count(*) FROM all_fast'))[0][0] === 13);
});

test('ack-floor: what a message may ask for, whatever its table says', async () => {
    for (const [floor, topic, options, leaves] of [
        ['memory', 'c/safe', ack('memory'), true],
        ['memory', 'c/safe', { qos: 1 }, false],
        ['quorum', 'c/fast', { qos: 1 }, false],
        ['local', 'c/fast', ack('memory'), false],
    ]) {
        const { node, tell } = await nodeOnSickDisk(['--ack-floor', floor]);
        await tables(node);
        tell('hold-sync');
        const [answer] = await publishHeld(node, [[topic, options]]);
        if (leaves) {
            await answer.done;
        } else {
            // It has been read once another connection's plain message has come and gone behind it.
            const other = await node.client();
            for (let i = 0; i < 5; i++) await other.publishAsync('plain/x', '1', { qos: 1 });
        }
        assert.equal(answer.acked, leaves, `${floor} ${topic}`);
        tell('');
        await answer.done;
        assert.ok(answer.acked);
        await node.stop();
    }
});

test('kill -9: class memory may lose what it acknowledged, class quorum does not', async () => {
    const { node, tell } = await nodeOnSickDisk();
    await tables(node);
    const client = await node.client();
    for (let i = 0; i < 20; i++) await client.publishAsync('c/safe', String(i), { qos: 1 });
    tell('hold-sync');
    const [slow] = await publishHeld(node, [['c/safe', { qos: 1 }]]);
    let acked = 0;
    for (let i = 0; i < 50; i++) await client.publishAsync('c/fast', String(i), { qos: 1 }).then(() => acked++);
    assert.equal(acked, 50);
    assert.ok(!slow.acked);
    await node.kill();
    tell('');
    await node.restart();
    assert.ok((await node.rows('SELECT count(*) FROM safe'))[0][0] >= 20);
    // What is left is a beginning of what was said, without holes: a lost entry takes all behind it.
    const [[count, most]] = await node.rows('SELECT count(*), max(value) FROM fast');
    assert.ok(count < 50, `the writer was held, but ${count} rows are there`);
    assert.equal(most, count ? count - 1 : null);
});
