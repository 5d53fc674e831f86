// Nodes of a cluster die under load: nothing acknowledged is lost, nothing is doubled, all nodes
// hold the same.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { test, cleanup, until } from './lib/harness.mjs';
import { BIN, BUILD, run } from './lib/chronos.mjs';
import { Cluster, sameRows } from './lib/cluster.mjs';

const ROUNDS = process.env.LONG ? 50 : 5;
const PUBLISHER = join(BUILD, 'tests', 'chr_test_crash_publisher');
const seed = Number(process.env.CHR_SEED ?? Date.now() % 1000000);

// mulberry32: the moments of the kills repeat with the seed.
function random(state) {
    return () => {
        state = (state + 0x6d2b79f5) | 0;
        let t = Math.imul(state ^ (state >>> 15), 1 | state);
        t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
        return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

function publisher(port, args) {
    const child = spawn(PUBLISHER, ['--address', `127.0.0.1:${port}`, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
    cleanup(() => child.kill('SIGKILL'));
    let out = '', err = '';
    child.stdout.on('data', (t) => (out += t));
    child.stderr.on('data', (t) => (err += t));
    const done = new Promise((resolve) => child.on('close', (code) => resolve({ code, out, err })));
    return { child, done };
}

const perDevice = (prefix) =>
    `SELECT device_id, count(*), count(DISTINCT value), min(value), max(value) FROM readings
     WHERE device_id LIKE '${prefix}-%' GROUP BY device_id ORDER BY device_id`;

function checkRows(rows, clients, { all = false } = {}) {
    const byDevice = new Map(rows.map((r) => [r[0], r]));
    let total = 0;
    for (const { device, sent, acked } of clients) {
        const [, count, distinct, min, max] = byDevice.get(device) ?? [device, 0, 0, null, null];
        const what = `${device}: sent ${sent} acked ${acked} rows ${count} distinct ${distinct} max ${max}`;
        assert.ok(count >= acked, `lost: ${what}`);
        assert.equal(count, distinct, `doubled: ${what}`);
        assert.ok(count <= sent, what);
        if (count) assert.ok(min === 0 && max === count - 1, `a gap: ${what}`);
        if (all) assert.equal(acked, sent, what);
        total += acked;
    }
    return total;
}

async function caughtUp(cluster) {
    await cluster.leader();
    await until('all nodes have applied the same', async () => {
        const states = await Promise.all(cluster.running().map((n) => cluster.health(n)));
        return states.every((s) => s && s.apply_index === states[0].apply_index && s.status === 'ok');
    }, 30000);
}

test(`the leader is killed ${ROUNDS} times; readings sent to a follower are there once`, async () => {
    console.error(`seed ${seed}`);
    const next = random(seed);
    const cluster = await new Cluster(3, { args: ['--hot-limit', '8MiB', '--checkpoint-log-bytes', '16MiB'] }).start();
    let total = 0;
    for (let round = 0; round < ROUNDS; round++) {
        const leader = await cluster.leader();
        const entry = cluster.followers(leader)[Math.floor(next() * 2)];
        const load = publisher(entry.port, ['--qos', '1', '--prefix', `f${round}`, '--window', '256']);
        await pause(100 + next() * 400);
        await leader.kill();
        const rest = cluster.running();
        await cluster.leader(rest);
        await pause(100 + next() * 200);
        load.child.kill('SIGTERM');
        const { code, out, err } = await load.done;
        assert.equal(code, 0, err);
        leader.stderr = '';
        await leader.start();
        await caughtUp(cluster);
        const rows = await sameRows(cluster.nodes, perDevice(`f${round}`));
        total += checkRows(rows, JSON.parse(out).clients);
    }
    console.error(`${total} readings acknowledged`);
    assert.ok(total > ROUNDS * 100, `only ${total} readings acknowledged: nothing was shown`);
}, { timeoutMs: ROUNDS * 30000 });

test(`the node that clients are connected to is killed ${ROUNDS} times`, async () => {
    const next = random(seed + 1);
    const cluster = await new Cluster(3, { args: ['--hot-limit', '8MiB', '--checkpoint-log-bytes', '16MiB'] }).start();
    let total = 0;
    for (let round = 0; round < ROUNDS; round++) {
        await cluster.leader();
        const entry = cluster.nodes[Math.floor(next() * 3)];
        const load = publisher(entry.port, ['--qos', '1', '--prefix', `n${round}`, '--window', '256']);
        await pause(100 + next() * 400);
        await entry.kill();
        const { code, out, err } = await load.done;
        assert.equal(code, 0, err);
        entry.stderr = '';
        await entry.start();
        await caughtUp(cluster);
        const rows = await sameRows(cluster.nodes, perDevice(`n${round}`));
        total += checkRows(rows, JSON.parse(out).clients);
    }
    console.error(`${total} readings acknowledged`);
    assert.ok(total > ROUNDS * 100, `only ${total} readings acknowledged: nothing was shown`);
}, { timeoutMs: ROUNDS * 30000 });

test('all nodes are killed at once and come back', async () => {
    const cluster = await new Cluster(3, { args: ['--hot-limit', '8MiB', '--checkpoint-log-bytes', '16MiB'] }).start();
    const next = random(seed + 2);
    for (let round = 0; round < 3; round++) {
        await cluster.leader();
        const loads = cluster.nodes.map((n) => publisher(n.port, ['--qos', '1', '--prefix', `a${round}${n.number}`, '--window', '256']));
        await pause(200 + next() * 400);
        await Promise.all(cluster.nodes.map((n) => n.kill()));
        const results = await Promise.all(loads.map((l) => l.done));
        for (const n of cluster.nodes) n.stderr = '';
        await Promise.all(cluster.nodes.map((n) => n.start()));
        await caughtUp(cluster);
        for (const [i, { code, out, err }] of results.entries()) {
            assert.equal(code, 0, err);
            checkRows(await sameRows(cluster.nodes, perDevice(`a${round}${i}`)), JSON.parse(out).clients);
        }
    }
}, { timeoutMs: 120000 });
