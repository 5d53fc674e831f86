// Clusters of real nodes: founding, forwarding, reads, failing over.
import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { test, until } from './lib/harness.mjs';
import { Cluster, sameRows } from './lib/cluster.mjs';

const count = (prefix) => `SELECT count(*), sum(value) FROM readings WHERE device_id LIKE '${prefix}%'`;

test('three nodes found a cluster; a reading sent to any of them is on all', async () => {
    const cluster = await new Cluster(3).start();
    const leader = await cluster.leader();
    for (const node of cluster.nodes) {
        const client = await node.client();
        const { code } = await node.publish(client, `sensors/any-${node.number}/temp`, String(node.number + 1));
        assert.equal(code, 0);
    }
    const rows = await sameRows(cluster.nodes, count('any-'));
    assert.deepEqual(rows, [[3, 6]]);
    const health = await cluster.health(leader);
    assert.equal(health.status, 'ok');
    assert.equal(health.quorum, true);
    assert.equal(health.peers.length, 2);
});

test('a node that comes back with an empty disk learns everything from the log, and votes again', async () => {
    const cluster = await new Cluster(3).start();
    const leader = await cluster.leader();
    const client = await leader.client();
    for (let i = 0; i < 100; i++) await leader.publish(client, `sensors/w-${i}/temp`, String(i));
    const [victim, other] = cluster.followers(leader);
    await victim.kill();
    rmSync(victim.dataDir, { recursive: true });
    victim.stderr = '';
    await victim.start();
    await until('the wiped node votes again', async () => {
        const health = await cluster.health(leader);
        const peer = health?.peers.find((p) => p.node === victim.name);
        return peer?.up && peer.voter && peer.lag < 10 &&
            (await cluster.health(victim))?.status === 'ok';
    });
    assert.deepEqual(await sameRows(cluster.nodes, count('w-')), [[100, 4950]]);
    // It counts again: with another one gone there still is a majority.
    await other.kill();
    await cluster.leader(cluster.running());
    const { code } = await victim.publish(await victim.client(), 'sensors/w-more/temp', '1');
    assert.equal(code, 0);
});

test('a node that was away too long, or lost its disk, gets a snapshot while the others take readings', async () => {
    const cluster = await new Cluster(3, { args: ['--checkpoint-log-bytes', '1MiB', '--hot-limit', '4MiB', '--log-segment-bytes', '1MiB', '--log-retain-bytes', '64KiB'] }).start();
    const leader = await cluster.leader();
    const victim = cluster.followers(leader)[0];
    await leader.rows('SELECT 1');
    await victim.kill();
    rmSync(victim.dataDir, { recursive: true });
    let sent = 0;
    const fill = async (rows) => {
        for (let i = 0; i < rows; i += 5000) {
            const values = Array.from({ length: 5000 }, (_, k) => `('snap-${(sent + k) % 50}', '2024-01-01T00:00:00Z', ${sent + k})`);
            await leader.rows(`INSERT INTO readings (device_id, ts, value) VALUES ${values.join(',')}`);
            sent += 5000;
        }
    };
    await fill(100000);
    leader.signal('SIGUSR1'); // a checkpoint, and the log behind it goes
    await until('the log was cut', async () => (await cluster.health(leader)).log_first > 1);
    await fill(20000);
    victim.stderr = '';
    await victim.start();
    const beside = fill(50000);
    await until('the wiped node votes again', async () => {
        const health = await cluster.health(leader);
        const peer = health?.peers.find((p) => p.node === victim.name);
        return peer?.up && peer.voter && peer.lag < 10;
    }, 60000);
    await beside;
    assert.match(victim.stderr, /snapshot: received/, `${leader.stderr}\n${JSON.stringify(await cluster.health(leader))}`);
    await until('it has caught up', async () => (await cluster.health(victim))?.status === 'ok');
    const rows = await sameRows(cluster.nodes, count('snap-'));
    assert.deepEqual(rows, [[sent, (sent * (sent - 1)) / 2]]);
}, { timeoutMs: 180000 });

test('a node with a new disk forwards again, though it begins to count anew', async () => {
    const cluster = await new Cluster(3).start();
    const leader = await cluster.leader();
    const victim = cluster.followers(leader)[0];
    let client = await victim.client();
    for (let i = 0; i < 20; i++) await victim.publish(client, `sensors/again-${i}/temp`, '1');
    await victim.kill();
    rmSync(victim.dataDir, { recursive: true });
    victim.stderr = '';
    victim.sqlClient = undefined;
    await victim.start();
    client = await victim.client();
    for (let i = 20; i < 40; i++) assert.equal((await victim.publish(client, `sensors/again-${i}/temp`, '1')).code, 0);
    assert.deepEqual(await sameRows(cluster.nodes, count('again-')), [[40, 40]]);
});
