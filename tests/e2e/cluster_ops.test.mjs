// What an operator does to a cluster: who its nodes are, one more, one less, another leader; what a
// lost majority, an old version, a restored backup come to.
import assert from 'node:assert/strict';
import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { test, until } from './lib/harness.mjs';
import { BIN, Chronos, run, tempDir } from './lib/chronos.mjs';
import { Cluster, freePort, sameRows } from './lib/cluster.mjs';

const count = (prefix) => `SELECT count(*), sum(value) FROM readings WHERE device_id LIKE '${prefix}%'`;

/** `chronos cluster ARGS` by way of a node. */
const ask = (node, ...args) => run(BIN, ['cluster', ...args, '--leader', `127.0.0.1:${node.port}`], { timeoutMs: 60000 });
async function ok(promise) {
    const result = await promise;
    assert.equal(result.code, 0, result.stdout + result.stderr);
    return result.stdout;
}
async function refused(promise, pattern) {
    const result = await promise;
    assert.equal(result.code, 1, result.stdout + result.stderr);
    assert.match(result.stderr, pattern);
}

/** chronos_nodes by node. */
async function nodes(of) {
    const answer = await of.sql('SELECT * FROM chronos_nodes ORDER BY node');
    assert.ok(!answer.error, JSON.stringify(answer.error));
    return Object.fromEntries(answer.rows.map((row) => {
        const named = Object.fromEntries(row.map((v, i) => [answer.columns[i].name, v]));
        return [named.node, named];
    }));
}
const meta = (node) => readFileSync(join(node.dataDir, 'node.meta'), 'utf8');
const address = (node) => `127.0.0.1:${node.port}`;

/** One more node, which lists those there are; started, not added. */
async function another(cluster, name, args = []) {
    const node = new Chronos(join(cluster.dir, name), ['--id', name,
        '--address', `127.0.0.1:${await freePort()}`, '--admin-address', '127.0.0.1:0',
        '--peers', cluster.nodes.map((n) => `${n.name}=${address(n)}`).join(','), ...cluster.args, ...args]);
    node.command = 'node';
    node.name = name;
    node.number = cluster.nodes.length;
    return node.start();
}

const restart = async (node) => {
    assert.equal((await node.stop()).code, 0);
    node.stderr = '';
    await node.start();
};

test('a node is added, promoted, kept over restarts, leads, and is removed', async () => {
    const cluster = await new Cluster(3).start();
    const leader = await cluster.leader();
    const client = await leader.client();
    for (let i = 0; i < 50; i++) await leader.publish(client, `sensors/g-${i}/temp`, String(i));

    const follower = cluster.followers(leader)[0];
    const table = await ok(ask(follower, 'status'));
    for (const n of cluster.nodes) assert.match(table, new RegExp(`${n.name}.*${address(n)}.*voter`));
    const seen = await nodes(follower);
    assert.equal(seen[leader.name].role, 'leader');
    assert.equal(seen[follower.name].role, 'follower');
    assert.ok(seen[follower.name].match > 0 && seen[follower.name].lag < 100, JSON.stringify(seen));

    // Errors first.
    await refused(ask(follower, 'add', 'node4=127.0.0.1:1'), /node4 can't be reached at 127\.0\.0\.1:1/);
    await refused(ask(follower, 'promote', 'node9'), /no node node9/);
    await refused(ask(follower, 'promote', 'node1'), /is a voter already/);
    await refused(ask(follower, 'add', `node1=${address(cluster.nodes[0])}`), /node1 is a member already/);
    assert.equal((await ask(follower, 'add', 'node4')).code, 2);
    assert.equal((await ask(follower, 'remove')).code, 2);

    const node4 = await another(cluster, 'node4');
    assert.equal((await cluster.health(node4)).status, 'no_member');
    assert.match(await ok(ask(follower, 'add', `node4=${address(node4)}`)), /node4 at .* is a learner/);
    cluster.nodes.push(node4);
    await until('node4 is a learner', async () => (await cluster.health(node4)).membership === 'learner');
    assert.deepEqual(await node4.rows(count('g-')), [[50, 1225]]);
    await refused(ask(node4, 'transfer', 'node4'), /only a voter can lead/);
    assert.match(await ok(ask(node4, 'promote', 'node4')), /node4 is a voter/);
    await until('all know its address', () => cluster.nodes.every((n) => n === node4 || meta(n).includes(`peer node4 ${address(node4)} votes`)));

    // Known after restarts of everybody, one after the other, and of all at once.
    for (const n of cluster.nodes) await restart(n);
    await cluster.leader();
    await Promise.all(cluster.nodes.map((n) => n.kill()));
    for (const n of cluster.nodes) n.stderr = '';
    await Promise.all(cluster.nodes.map((n) => n.start()));
    await cluster.leader();
    await until('all are connected', async () => Object.values(await nodes(cluster.nodes[0])).every((n) => n.up && n.voter));
    assert.match(await ok(ask(cluster.nodes[1], 'transfer', 'node4')), /node4 leads/);
    assert.equal((await cluster.leader()).name, 'node4');
    const { code } = await node4.publish(await node4.client(), 'sensors/g-x/temp', '0');
    assert.equal(code, 0);

    // It leads, and is removed by way of itself: somebody else takes over first.
    assert.match(await ok(ask(node4, 'remove', 'node4')), /node4 is no member any more/);
    const rest = cluster.nodes.slice(0, 3);
    const next = await cluster.leader(rest);
    const term = (await cluster.health(next)).term;
    await until('node4 knows', async () => (await cluster.health(node4)).status === 'removed');
    assert.match(node4.stderr, /this node was removed/);
    await until('it is forgotten', () => rest.every((n) => !meta(n).includes('node4') && /forgotten.*node4/.test(n.stderr)), 30000);
    assert.equal(Object.keys(await nodes(next)).length, 3);
    await new Promise((resolve) => setTimeout(resolve, 2000)); // several elections' time of node4
    assert.equal((await cluster.health(next)).term, term, 'node4 disturbs nobody');
    assert.deepEqual(await sameRows(rest, count('g-')), [[51, 1225]]);

    // And back: with the disk it has.
    await ok(ask(next, 'add', `node4=${address(node4)}`));
    await ok(ask(next, 'promote', 'node4'));
    assert.deepEqual(await sameRows(cluster.nodes, count('g-')), [[51, 1225]]);
}, { timeoutMs: 180000 });
