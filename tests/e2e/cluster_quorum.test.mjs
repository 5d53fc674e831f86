// A cluster that loses its majority for a while, stops without one, or is founded in haste.
import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { test, until } from './lib/harness.mjs';
import { Cluster, sameRows } from './lib/cluster.mjs';

test('many entries wait while a majority is missing: all of them are committed when it is back', async () => {
    const cluster = await new Cluster(3).start();
    const leader = await cluster.leader();
    const client = await leader.client();
    await leader.publish(client, 'sensors/wait-0/temp', '1');
    const [stopped, dead] = cluster.followers(leader);
    await dead.kill();
    stopped.signal('SIGSTOP');
    const sent = [];
    for (let i = 1; i <= 60; i++) {
        sent.push(leader.publish(client, `sensors/wait-${i}/temp`, '1'));
        await new Promise((resolve) => setTimeout(resolve, 5));
    }
    await until('the leader notices', async () => !(await cluster.health(leader)).quorum);
    stopped.signal('SIGCONT');
    for (const { code } of await Promise.all(sent)) assert.equal(code, 0);
    const rows = await sameRows([leader, stopped],
        "SELECT count(*), count(DISTINCT device_id) FROM readings WHERE device_id LIKE 'wait-%'");
    assert.deepEqual(rows, [[61, 61]]);
});

test('a node with unanswered publishes and no majority stops when it is told to', async () => {
    const cluster = await new Cluster(3).start();
    const leader = await cluster.leader();
    const client = await leader.client();
    client.on('error', () => {});
    await leader.publish(client, 'sensors/stop-0/temp', '1');
    for (const node of cluster.followers(leader)) await node.kill();
    await until('the leader notices', async () => !(await cluster.health(leader)).quorum);
    leader.publish(client, 'sensors/stop-1/temp', '2');
    await until('it is on its way', async () => (await cluster.health(leader)) !== undefined);
    leader.signal('SIGTERM');
    const { code } = await leader.exited;
    assert.equal(code, 0);
});

test('a snapshot is put in place while clients of the node wait for answers', async () => {
    const cluster = await new Cluster(3, { args: ['--checkpoint-log-bytes', '1MiB', '--hot-limit', '4MiB',
        '--log-segment-bytes', '1MiB', '--log-retain-bytes', '64KiB'] }).start();
    const leader = await cluster.leader();
    const victim = cluster.followers(leader)[0];
    await victim.kill();
    rmSync(victim.dataDir, { recursive: true });
    for (let b = 0; b < 24; b++) {
        const values = Array.from({ length: 5000 }, (_, k) => `('w-${k % 50}', '2024-01-01T00:00:00Z', ${b * 5000 + k})`);
        await leader.rows(`INSERT INTO readings (device_id, ts, value) VALUES ${values.join(',')}`);
    }
    leader.signal('SIGUSR1');
    await until('the log was cut', async () => (await cluster.health(leader)).log_first > 1);
    victim.stderr = '';
    await victim.start();
    const client = await victim.client();
    client.on('error', () => {});
    victim.publish(client, 'sensors/beside/temp', '1');
    await until('the wiped node votes again', async () => {
        const peer = (await cluster.health(leader))?.peers.find((p) => p.node === victim.name);
        return peer?.up && peer.voter && peer.lag < 10;
    }, 60000);
    assert.match(victim.stderr, /snapshot: received/);
    const rows = await sameRows(cluster.nodes, "SELECT count(*), sum(value) FROM readings WHERE device_id LIKE 'w-%'");
    assert.deepEqual(rows, [[120000, (120000 * 119999) / 2]]);
}, { timeoutMs: 180000 });

test('--bootstrap on all nodes founds one cluster', async () => {
    const cluster = await new Cluster(3, { args: ['--bootstrap'] }).start();
    const numbers = new Set();
    for (const node of cluster.nodes) numbers.add((await cluster.health(node)).cluster);
    assert.equal(numbers.size, 1);
});

test('--fsync periodic: a new cluster elects a leader', async () => {
    const cluster = await new Cluster(3, { args: ['--fsync', 'periodic'] }).start();
    const leader = await cluster.leader();
    const { code } = await leader.publish(await leader.client(), 'sensors/periodic/temp', '1');
    assert.equal(code, 0);
});
