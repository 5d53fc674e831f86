// Clusters of real nodes: founding, forwarding, reads, failing over.
import assert from 'node:assert/strict';
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
