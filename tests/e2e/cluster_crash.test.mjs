// Nodes of a cluster die under load: nothing acknowledged is lost, nothing is doubled, all nodes
// hold the same.
import assert from 'node:assert/strict';
import { test } from './lib/harness.mjs';
import { Cluster, sameRows } from './lib/cluster.mjs';
import { caughtUp, checkRows, pause, perDevice, publisher, random, seed } from './lib/load.mjs';

const ROUNDS = process.env.LONG ? 50 : 5;

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
