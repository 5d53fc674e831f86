// What an operator does to a cluster: who its nodes are, one more, one less, another leader; what a
// lost majority, an old version, a restored backup come to.
import assert from 'node:assert/strict';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test, until } from './lib/harness.mjs';
import { BIN, Chronos, run, tempDir } from './lib/chronos.mjs';
import { Cluster, sameRows } from './lib/cluster.mjs';
import { append, lane, members, protobuf } from './lib/peer.mjs';
import { freePort } from './lib/port.mjs';

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
/** All of them are there and have everything, by the word of the leader. */
const settled = (of, those) => until('all have caught up', async () => {
    const seen = await nodes(of);
    return those.every((n) => seen[n.name]?.up && seen[n.name].lag === 0);
}, 60000);
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

    // Plain messages go to it and come from it, now and when it has been away without starting again.
    const heard = { there: [], here: [] };
    const there = await node4.client(), here = await leader.client();
    there.on('message', (topic, payload) => heard.there.push(payload.toString()));
    here.on('message', (topic, payload) => heard.here.push(payload.toString()));
    await there.subscribeAsync('note/from-here/#', { qos: 1 });
    await here.subscribeAsync('note/from-there/#', { qos: 1 });
    let notes = 0;
    const talk = async () => {
        for (let i = 0; i < 10; i++, notes++) {
            await here.publishAsync('note/from-here/x', String(notes), { qos: 1 });
            await there.publishAsync('note/from-there/x', String(notes), { qos: 1 });
        }
        const all = Array.from({ length: 10 }, (_, i) => String(notes - 10 + i));
        await until(`they come, once and in order ${JSON.stringify(heard)}`, () =>
            heard.there.slice(-10).join() === all.join() && heard.here.slice(-10).join() === all.join());
    };
    await talk();

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
    await until('its subscribers are known', async () => (await leader.metrics())['chronos_peer_filters{peer="node4"}'] === 1 &&
        (await node4.metrics())[`chronos_peer_filters{peer="${leader.name}"}`] === 1);
    await talk();
    assert.equal(heard.there.length, 20);
    assert.equal(heard.here.length, 20);
}, { timeoutMs: 180000 });

test('a node that joins late gets a snapshot; three grow to five; a node is replaced', async () => {
    const cluster = await new Cluster(3, { args: ['--checkpoint-log-bytes', '1MiB', '--hot-limit', '4MiB', '--log-segment-bytes', '1MiB', '--log-retain-bytes', '64KiB'] }).start();
    const leader = await cluster.leader();
    for (let i = 0; i < 100000; i += 5000) {
        const values = Array.from({ length: 5000 }, (_, k) => `('late-${(i + k) % 50}', '2024-01-01T00:00:00Z', ${i + k})`);
        await leader.rows(`INSERT INTO readings (device_id, ts, value) VALUES ${values.join(',')}`);
    }
    leader.signal('SIGUSR1'); // a checkpoint, and the log behind it goes
    await until('the log was cut', async () => (await cluster.health(leader)).log_first > 1);
    const config = join(cluster.dir, 'late.conf');
    for (const name of ['node4', 'node5']) {
        writeFileSync(config, 'max_keepalive 100\n');
        const node = await another(cluster, name, ['--config', config]);
        writeFileSync(config, 'max_keepalive 200\n');
        node.signal('SIGHUP');
        await until('it has read its settings again', () => /settings read again.*max_keepalive/.test(node.stderr));
        await ok(ask(leader, 'add', `${name}=${address(node)}`));
        cluster.nodes.push(node);
    }
    const [node4, node5] = cluster.nodes.slice(3);
    for (const node of [node4, node5]) {
        await until(`${node.name} is promoted`, async () => {
            const { code, stderr } = await ask(leader, 'promote', node.name);
            if (code) assert.match(stderr, /too far behind|can't be reached/);
            return code === 0;
        }, 60000);
        assert.match(node.stderr, /snapshot: received/);
        // It started again within its process, with the settings it ran with.
        const client = await node.client({ keepalive: 1000 });
        assert.equal(client.connack.properties.serverKeepAlive, 200);
        await client.endAsync();
        assert.equal((await leader.metrics())[`chronos_peer_member{peer="${node.name}"}`], 2);
    }
    assert.ok((await leader.metrics()).chronos_snapshots_sent_total >= 2);
    assert.deepEqual(await sameRows(cluster.nodes, count('late-')), [[100000, 4999950000]]);

    // Two of five gone: it goes on. One of those two is replaced by another node.
    await node4.kill();
    await node5.kill();
    await cluster.leader(cluster.running());
    const any = cluster.running()[0];
    assert.equal((await any.publish(await any.client(), 'sensors/late-x/n', '0')).code, 0);
    await ok(ask(any, 'remove', 'node4'));
    cluster.nodes.splice(3, 1);
    const node6 = await another({ ...cluster, nodes: cluster.nodes.slice(0, 3) }, 'node6');
    await ok(ask(any, 'add', `node6=${address(node6)}`));
    cluster.nodes.push(node6);
    await until('node6 votes', async () => (await ask(any, 'promote', 'node6')).code === 0, 60000);
    // node4 comes back, is a stranger, and disturbs nobody; its disk wiped it would be one, too.
    node4.stderr = '';
    await node4.start();
    const term = (await cluster.health(any)).term;
    await until('node4 has nobody', async () => /none of the other nodes answers/.test(node4.stderr), 40000);
    assert.equal((await cluster.health(any)).term, term);
    node5.stderr = '';
    await node5.start();
    await settled(any, cluster.nodes);
    assert.deepEqual(await sameRows(cluster.nodes, count('late-')), [[100001, 4999950000]]);
    // A member that was added loses its disk: it is taken in again like one of the first.
    await node6.kill();
    rmSync(node6.dataDir, { recursive: true });
    node6.stderr = '';
    await node6.start();
    await until('node6 votes again', async () => (await nodes(any)).node6?.voter, 60000);
    await settled(any, cluster.nodes);
    assert.deepEqual(await sameRows(cluster.nodes, count('late-')), [[100001, 4999950000]]);
}, { timeoutMs: 300000 });

test('what would stop the cluster is refused', async () => {
    const cluster = await new Cluster(3).start();
    const leader = await cluster.leader();
    const [a, b] = cluster.followers(leader);
    await refused(ask(a, 'transfer', 'nobody'), /no node nobody/);
    await b.kill();
    await until('it is missed', async () => !(await nodes(leader))[b.name].up);
    await refused(ask(a, 'remove', a.name), /the cluster would stop: of the 2 voters there would be then, only 1 answer/);
    await refused(ask(a, 'transfer', b.name), /can't be reached/);
    assert.match(await ok(ask(a, 'remove', b.name)), /no member any more/); // the dead one may go
    await ok(ask(a, 'remove', leader.name));
    assert.equal((await cluster.leader([a])).name, a.name);
    await refused(ask(a, 'remove', a.name), /is the last voter/);
    assert.equal((await a.publish(await a.client(), 'sensors/alone/n', '1')).code, 0);
});

test('a voter on the disk of another cluster counts for nothing: not as up, not for a change of members', async () => {
    const cluster = await new Cluster(3).start(), others = await new Cluster(3).start();
    const leader = await cluster.leader();
    const [a, b] = cluster.followers(leader);
    const theirs = others.nodes[b.number];
    await theirs.stop();
    await b.stop();
    const own = b.dataDir;
    b.dataDir = theirs.dataDir;
    b.stderr = '';
    await b.start();
    await until('it is said', () => /belongs to another cluster; nothing is taken from it/.test(leader.stderr));
    await until('it is not up', async () => !(await nodes(leader))[b.name].up);
    await refused(ask(leader, 'remove', a.name), /the cluster would stop: of the 2 voters there would be then, only 1 answer/);
    await refused(ask(leader, 'transfer', b.name), /can't be reached/);
    assert.equal((await a.publish(await a.client(), 'sensors/still/n', '1')).code, 0);
    await b.stop();
    b.dataDir = own;
    b.stderr = '';
    await b.start();
    await settled(leader, cluster.nodes);
});

test('no leader: status is shown all the same, changes say why not', async () => {
    const cluster = await new Cluster(3).start();
    const leader = await cluster.leader();
    const [a, b] = cluster.followers(leader);
    await a.kill();
    await leader.kill();
    await until('nobody leads', async () => (await cluster.health(b)).status === 'no_leader');
    assert.match(await ok(ask(b, 'status')), new RegExp(`${b.name}.*voter`));
    await refused(ask(b, 'remove', a.name), /no leader can be reached: nothing was done/);
});

test('rights: who may look, who may change', async () => {
    const dir = tempDir(), passwords = join(dir, 'passwords');
    for (const user of ['boss', 'reader', 'probe'])
        await ok(run(BIN, ['passwd', ...(user === 'boss' ? ['-c'] : []), '-b', passwords, user, 'secret']));
    const cluster = await new Cluster(3, { args: ['--password-file', passwords, '--user-role', 'boss admin', '--user-role', 'reader readonly'] });
    await cluster.prepare();
    await Promise.all(cluster.nodes.map((n) => n.start()));
    await until('a leader', async () => (await cluster.health(cluster.nodes[0]))?.leader);
    const [node] = cluster.nodes;
    const as = (user, ...args) => ask(node, ...args, '-u', user, '-P', 'secret');
    assert.match(await ok(as('boss', 'status')), /node3/);
    assert.match(await ok(as('reader', 'status')), /node3/);
    await refused(as('probe', 'status'), /42501/);
    await refused(as('reader', 'remove', 'node3'), /42501/);
    await refused(as('probe', 'remove', 'node3'), /42501/);
    assert.equal((await ask(node, 'status')).code, 2);
    // Whoever may read the data directory is an admin.
    const mine = (...args) => run(BIN, ['cluster', ...args, '--data-dir', node.dataDir]);
    assert.match(await ok(mine('status')), /node3/);
    assert.match(await ok(mine('transfer', 'node2')), /node2 leads/);
});

test('--force-new-cluster: one survivor goes on alone, the others join it with empty disks', async () => {
    const cluster = await new Cluster(3).start();
    const leader = await cluster.leader();
    const client = await leader.client();
    for (let i = 0; i < 100; i++) await leader.publish(client, `sensors/f-${i}/temp`, String(i));
    const survivor = cluster.followers(leader)[0];
    assert.deepEqual(await survivor.rows(count('f-')), [[100, 4950]]);
    // While there is a leader it is refused, and nothing is touched.
    await survivor.stop();
    const before = /^cluster \S+$/m.exec(meta(survivor))[0];
    survivor.args.push('--force-new-cluster');
    survivor.stderr = '';
    await assert.rejects(survivor.start(), /refused: the cluster has a leader/);
    assert.ok(meta(survivor).includes(before));
    survivor.args.pop();
    survivor.stderr = '';
    await survivor.start();
    await until('it is back', async () => (await cluster.health(survivor))?.status === 'ok');
    const lost = cluster.nodes.filter((n) => n !== survivor);
    await Promise.all(lost.map((n) => n.kill()));
    await survivor.kill();
    survivor.args.push('--force-new-cluster');
    survivor.stderr = '';
    await survivor.start();
    assert.match(survivor.stderr, /warning force: .*LOST/);
    assert.match(survivor.stderr, /a new cluster of this node alone/);
    assert.ok(!meta(survivor).includes(before));
    assert.match(meta(survivor), /^log_parent [0-9a-f]{16}$/m);
    assert.match(meta(survivor), /^log_fork \d+$/m);
    await until('it leads', async () => (await cluster.health(survivor)).role === 'leader');
    assert.deepEqual(await survivor.rows(count('f-')), [[100, 4950]]);
    assert.equal((await survivor.publish(await survivor.client(), 'sensors/f-x/temp', '1')).code, 0);
    // Left in the settings it does nothing more.
    const now = /^cluster \S+$/m.exec(meta(survivor))[0];
    await restart(survivor);
    assert.match(survivor.stderr, /a cluster of one already/);
    assert.ok(meta(survivor).includes(now));
    // One of the others comes back as it was: refused. Then with an empty disk: added.
    const [back] = lost;
    back.stderr = '';
    await back.start();
    await until('it is told', async () => /belongs to another cluster/.test(survivor.stderr) && /belongs to another cluster/.test(back.stderr));
    await refused(ask(survivor, 'add', `${back.name}=${address(back)}`), /belongs to another cluster/);
    await back.kill();
    rmSync(back.dataDir, { recursive: true });
    back.stderr = '';
    await back.start();
    await ok(ask(survivor, 'add', `${back.name}=${address(back)}`));
    await ok(ask(survivor, 'promote', back.name));
    assert.deepEqual(await sameRows([survivor, back], count('f-')), [[101, 4951]]);
    const { code, stdout } = await run(BIN, ['check', '--data-dir', lost[1].dataDir]);
    assert.equal(code, 0, stdout);
}, { timeoutMs: 180000 });

test('a backup restored into a member becomes a cluster of one, to which others are added', async () => {
    const cluster = await new Cluster(3).start();
    const leader = await cluster.leader();
    const client = await leader.client();
    for (let i = 0; i < 20; i++) await leader.publish(client, `sensors/r-${i}/temp`, String(i));
    const file = join(cluster.dir, 'backup.snap');
    await ok(run(BIN, ['snapshot', 'create', '--data-dir', leader.dataDir, '--output', file]));
    await leader.publish(client, 'sensors/r-late/temp', '1000');
    await Promise.all(cluster.nodes.map((n) => n.stop()));
    const [first, ...others] = cluster.nodes;
    await ok(run(BIN, ['snapshot', 'restore', '--data-dir', first.dataDir, '--input', file, '--force']));
    first.stderr = '';
    await assert.rejects(first.start(), /--bootstrap makes a cluster of one of it/);
    first.args.push('--bootstrap');
    first.stderr = '';
    await first.start();
    await until('it leads', async () => (await cluster.health(first)).role === 'leader');
    assert.deepEqual(await first.rows(count('r-')), [[20, 190]]);
    await restart(first); // --bootstrap may stay
    for (const node of others) {
        rmSync(node.dataDir, { recursive: true });
        node.stderr = '';
        await node.start();
        await ok(ask(first, 'add', `${node.name}=${address(node)}`));
        await until(`${node.name} votes`, async () => (await ask(first, 'promote', node.name)).code === 0);
    }
    await first.publish(await first.client(), 'sensors/r-new/temp', '10');
    assert.deepEqual(await sameRows(cluster.nodes, count('r-')), [[21, 200]]);
    await first.kill();
    await cluster.leader(others);
    assert.deepEqual(await sameRows(others, count('r-')), [[21, 200]]);
    // A single node's directory, likewise.
    const single = await new Chronos(join(cluster.dir, 'single')).start();
    await single.rows("INSERT INTO readings (device_id, value) VALUES ('s-1', 5)");
    await single.stop();
    const member = new Chronos(single.dataDir, ['--id', 'solo', '--bootstrap', '--address', `127.0.0.1:${await freePort()}`]);
    member.command = 'node';
    await member.start();
    assert.deepEqual(await member.rows(count('s-')), [[1, 5]]);
    assert.equal((await nodes(member)).solo.role, 'leader');
}, { timeoutMs: 180000 });

test('--fsync periodic: a cluster that was stopped in order elects a leader; after kills it does not vote on trust', async () => {
    const cluster = await new Cluster(3, { args: ['--fsync', 'periodic'] }).start();
    const leader = await cluster.leader();
    await leader.publish(await leader.client(), 'sensors/p-1/temp', '7');
    assert.deepEqual(await sameRows(cluster.nodes, count('p-')), [[1, 7]]);
    assert.ok(cluster.nodes.every((n) => !/^clean$/m.test(meta(n))));
    await Promise.all(cluster.nodes.map((n) => n.stop()));
    assert.ok(cluster.nodes.every((n) => /^clean$/m.test(meta(n))));
    for (const n of cluster.nodes) n.stderr = '';
    await Promise.all(cluster.nodes.map((n) => n.start()));
    await cluster.leader();
    assert.deepEqual(await sameRows(cluster.nodes, count('p-')), [[1, 7]]);
    // One that was killed catches up, and is as good as before.
    const victim = cluster.followers(await cluster.leader())[0];
    await victim.kill();
    victim.stderr = '';
    await victim.start();
    await until('it has caught up', async () => (await cluster.health(victim))?.catching_up === false);
    await victim.stop();
    assert.match(meta(victim), /^clean$/m);
    victim.stderr = '';
    await victim.start();
    await cluster.leader();
    // All killed: nobody knows what was lost.
    await Promise.all(cluster.nodes.map((n) => n.kill()));
    for (const n of cluster.nodes) n.stderr = '';
    await Promise.all(cluster.nodes.map((n) => n.start()));
    await new Promise((resolve) => setTimeout(resolve, 3000));
    for (const n of cluster.nodes) assert.equal((await cluster.health(n)).status, 'no_leader');
}, { timeoutMs: 180000 });

test('/health and /metrics of a member', async () => {
    const cluster = await new Cluster(3).start();
    const leader = await cluster.leader();
    const follower = cluster.followers(leader)[0];
    const client = await follower.client();
    for (let i = 0; i < 20; i++) await follower.publish(client, `sensors/m-${i}/temp`, String(i));
    await follower.rows(count('m-'));
    await leader.rows(count('m-'));
    const health = await cluster.health(leader);
    assert.equal(health.membership, 'voter');
    for (const node of cluster.nodes) // the newest that all of them know
        await until('the newest format is in use', async () => (await cluster.health(node)).format === 2);
    assert.equal(health.change_pending, false);
    const [l, f] = [await leader.metrics(), await follower.metrics()];
    assert.equal(l.chronos_leader, 1);
    assert.equal(f.chronos_leader, 0);
    assert.equal(l.chronos_term, f.chronos_term);
    assert.ok(l.chronos_elections_won_total >= 1);
    assert.ok(f.chronos_forwarded_total >= 1);
    assert.ok(l['chronos_reads_total{by="lease"}'] + l['chronos_reads_total{by="round"}'] >= 1);
    assert.ok(f['chronos_reads_total{by="leader"}'] >= 1);
    assert.ok(l['chronos_commit_seconds_count'] >= 1 && l.chronos_commit_seconds_sum > 0);
    assert.equal(l['chronos_commit_seconds_bucket{le="+Inf"}'], l.chronos_commit_seconds_count);
    for (const lane of ['control', 'bulk']) {
        assert.equal(l[`chronos_peer_lane_up{peer="${follower.name}",lane="${lane}"}`], 1);
        assert.ok(l[`chronos_peer_sent_bytes_total{peer="${follower.name}",lane="${lane}"}`] > 0);
    }
    assert.ok(l[`chronos_peer_filters{peer="${follower.name}"}`] >= 0);
    assert.equal(l[`chronos_peer_delivery_queued_bytes{peer="${follower.name}"}`], 0);
    assert.ok(l[`chronos_peer_lag_entries{peer="${follower.name}"}`] < 1000);
    assert.equal(f[`chronos_peer_lag_entries{peer="${leader.name}"}`], undefined);
    assert.ok(Math.abs(l[`chronos_peer_clock_skew_seconds{peer="${follower.name}"}`]) < 1);
    assert.equal(l.chronos_peer_strangers_total, 0);
    assert.equal(l.chronos_quorum, 1);
    // A single node says what there is of it.
    const single = await new Chronos(join(cluster.dir, 'single')).start();
    const [row] = (await single.sql('SELECT node, role, voter, up, lag FROM chronos_nodes')).rows;
    assert.deepEqual(row, ['single-node', 'leader', true, true, 0]);
    const { code, stderr } = await ask(single, 'add', 'node2=127.0.0.1:1');
    assert.equal(code, 1);
    assert.match(stderr, /this is a single node/);
});

test('a leader that writes what we do not know yet: nothing of it is taken, and it is said once', async () => {
    const dir = tempDir(), start = async (name, args = []) => {
        const node = new Chronos(join(dir, name), ['--id', name, '--address', `127.0.0.1:${await freePort()}`, ...args]);
        node.command = 'node';
        node.name = name;
        return node.start();
    };
    const number = (node, key, base) => BigInt(base + new RegExp(`^${key} (\\S+)$`, 'm').exec(meta(node))[1]);
    // The other's number follows from its name; a node of that name says it.
    const namesake = await start('node2');
    const other = number(namesake, 'node', '');
    await namesake.kill();
    const node = await start('node1', ['--peers', `node2=127.0.0.1:${await freePort()}`]);
    const self = number(node, 'node', ''), incarnation = number(node, 'incarnation', '0x');
    const founders = members([{ node: self, incarnation, voter: true }, { node: other, incarnation: 77n, voter: true }]);
    const control = await lane('control', other, self, node.port), bulk = await lane('bulk', other, self, node.port);
    // [1] node [2] incarnation [3] boot [4] cluster [5] founders [6] format [7] version [8] name [9] address
    const hello = (format) => protobuf([1, other], [2, 77n], [3, 1], [4, 4711n], [5, founders], [6, format], [7, '9.9'], [8, 'node2'], [9, 'x:1']);
    await control.send(1, hello(5));
    await until('it has joined', () => /^founders/m.test(meta(node)));
    // [1] format [2] type [4] from [5] to [6] incarnation [7] term [8] index [9] log_term
    const message = protobuf([1, 1], [2, 4], [4, other], [5, self], [6, 77n], [7, 1]);
    const health = async () => JSON.parse((await node.http('/health')).text);
    const said = () => (node.stderr.match(/in a format that this version does not know/g) ?? []).length;
    for (let i = 0; i < 3; i++) await bulk.send(3, append(message, [{ term: 1, hlc: 65536 * 1000, type: 1 }, { term: 1, hlc: 65536 * 1001, type: 200 }]));
    await until('it is said', () => said() > 0);
    // What it knows it takes, from the same leader on the same lane: so all before has been looked at.
    await bulk.send(3, append(message, [{ term: 1, hlc: 65536 * 1000, type: 1 }]));
    await until('the entry is taken', async () => (await health()).log_index === 1);
    assert.equal(said(), 1);
    // A message in a newer format is not looked into, either.
    await bulk.send(3, append(protobuf([1, 3], [2, 4], [4, other], [5, self], [6, 77n], [7, 9]), []));
    await bulk.send(3, append(message, [{ term: 1, hlc: 65536 * 1000, type: 1 }, { term: 1, hlc: 65536 * 1001, type: 1 }]));
    await until('the next one is taken', async () => (await health()).log_index === 2);
    assert.equal((await health()).term, 1);
    assert.equal((await health()).format, 2); // the other knows more; we do not
    await node.stop();

    // A cluster that has gone on without us: neither side goes back.
    const path = join(node.dataDir, 'node.meta');
    writeFileSync(path, `${meta(node)}cluster_format 3\n`);
    node.stderr = '';
    await assert.rejects(node.start(), /writes format 3 already; this program knows 2/);
});
