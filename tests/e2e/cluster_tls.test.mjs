// Nodes that reach each other over TLS, with certificates on both sides.
import assert from 'node:assert/strict';
import { copyFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Authority } from './lib/certs.mjs';
import { run, tempDir } from './lib/chronos.mjs';
import { Cluster, sameRows } from './lib/cluster.mjs';
import { cleanup, test, until } from './lib/harness.mjs';
import { caughtUp, checkRows, pause, perDevice, publisher } from './lib/load.mjs';
import { freePorts } from './lib/port.mjs';

const LIMITS = ['--checkpoint-log-bytes', '1MiB', '--hot-limit', '4MiB', '--log-segment-bytes', '1MiB', '--log-retain-bytes', '64KiB'];
const count = (prefix) => `SELECT count(*), sum(value) FROM readings WHERE device_id LIKE '${prefix}%'`;

/** Where peers come in speaks TLS, and asks for a certificate; clients of the test come in at another listener. */
async function overTls(own = (ca, i) => ca.issue(`node${i + 1}`, { san: 'IP:127.0.0.1' }), args = []) {
    const dir = tempDir(), ca = new Authority(join(dir, 'ca'));
    const cluster = await new Cluster(3, { args }).prepare();
    const ports = await freePorts(3); // a node that starts again by itself keeps it
    for (const [i, node] of cluster.nodes.entries()) {
        const plain = join(dir, `plain${i}.conf`);
        writeFileSync(plain, `listener ${ports[i]} 127.0.0.1\n`);
        const { crt, key } = own(ca, i);
        node.args.push('--config', plain, '--certfile', crt, '--keyfile', key, '--cafile', ca.crt, '--require-certificate',
            '--peer-cafile', ca.crt, '--peer-certfile', crt, '--peer-keyfile', key, '--cluster-secret', 'over tls');
    }
    return { cluster, ca, dir };
}

async function startNode(node) {
    node.stderr = '';
    await node.start();
    node.tlsPort = node.listeners[0].port;
}

const startAll = async (cluster) => {
    await Promise.all(cluster.nodes.map(startNode));
    return cluster.leader();
};

test('three nodes over TLS: readings to any of them, a leader killed, a wiped disk filled by a snapshot', async () => {
    const { cluster } = await overTls(undefined, LIMITS);
    const leader = await startAll(cluster);
    for (const node of cluster.nodes) {
        const client = await node.client();
        for (let i = 0; i < 50; i++)
            assert.equal((await node.publish(client, `sensors/tls-${node.number}/temp`, String(i))).code, 0);
    }
    assert.deepEqual(await sameRows(cluster.nodes, count('tls-')), [[150, 3 * 1225]]);

    // More than a TLS record, a packet and a snapshot part.
    const victim = cluster.followers(leader)[0];
    await victim.kill();
    for (let i = 0; i < 20; i++) {
        const values = Array.from({ length: 5000 }, (_, k) => `('big-${(i * 5000 + k) % 977}', '${new Date(1.7e12 + 977 * k + i).toISOString()}', ${i * 5000 + k})`);
        await leader.rows(`INSERT INTO readings (device_id, ts, value) VALUES ${values.join(',')}`);
    }
    leader.signal('SIGUSR1'); // a checkpoint, and the log behind it goes
    await until('the log was cut', async () => (await cluster.health(leader)).log_first > 1);
    rmSync(victim.dataDir, { recursive: true });
    await startNode(victim);
    await until('the wiped node votes again', async () => {
        const peer = (await cluster.health(leader))?.peers.find((p) => p.node === victim.name);
        return peer?.up && peer.voter && peer.lag < 10 && (await cluster.health(victim))?.status === 'ok';
    }, 30000);
    assert.match(victim.stderr, /a snapshot is installed/);
    assert.deepEqual(await sameRows(cluster.nodes, count('big-')), [[100000, 4999950000]]);

    await leader.kill();
    const next = await cluster.leader(cluster.running());
    assert.equal((await next.publish(await next.client(), 'sensors/tls-x/temp', '7')).code, 0);
    assert.deepEqual(await sameRows(cluster.running(), count('tls-')), [[151, 3 * 1225 + 7]]);
}, { timeoutMs: 120000 });

test('a node with a certificate of somebody else is not taken in, nor is one without', async () => {
    const dir = tempDir(), others = new Authority(join(dir, 'others'), 'Somebody else');
    const { cluster, ca } = await overTls((own, i) => (i === 2 ? others : own).issue(`node${i + 1}`, { san: 'IP:127.0.0.1' }));
    await Promise.all(cluster.nodes.map(startNode));
    const [a, b, stranger] = cluster.nodes;
    // It can't be reached, and can't reach others: the three don't come together.
    await until('it is refused', () => /TLS/.test(a.stderr) && /TLS/.test(b.stderr));
    for (const node of cluster.nodes) assert.equal((await cluster.health(node)).status, 'no_member');
    await stranger.stop();
    const { crt, key } = ca.issue('node3-again', { san: 'IP:127.0.0.1' });
    for (const [flag, file] of [['--certfile', crt], ['--keyfile', key], ['--peer-certfile', crt], ['--peer-keyfile', key]])
        stranger.args[stranger.args.indexOf(flag) + 1] = file;
    await startNode(stranger);
    const leader = await cluster.leader();
    assert.equal((await leader.publish(await leader.client(), 'sensors/after/temp', '1')).code, 0);

    // A client that calls itself a peer and has a certificate, but not the secret.
    const { code } = await run('mosquitto_pub', ['-h', '127.0.0.1', '-p', String(a.tlsPort), '--cafile', ca.crt, '--cert', crt, '--key', key,
        '-i', '$chronos-peer-control-00000000000000aa', '-V', 'mqttv311', '-t', '$chronos/peer/x', '-m', 'x']);
    assert.notEqual(code, 0);
    await until('it is counted', async () => (await a.metrics()).chronos_peer_strangers_total >= 1);
}, { timeoutMs: 60000 });

test('the name a node is reached by is the one its certificate must have', async () => {
    const { cluster } = await overTls((own, i) => own.issue(`node${i + 1}`, { san: 'DNS:localhost' }));
    await Promise.all(cluster.nodes.map(startNode)); // 127.0.0.1 is not in it
    await until('all are refused', () => cluster.nodes.every((n) => (n.stderr.match(/can't reach a peer .*TLS/g) ?? []).length >= 2));
    for (const node of cluster.nodes) {
        assert.equal((await cluster.health(node)).status, 'no_member');
        await node.stop();
        const at = node.args.indexOf('--peers') + 1;
        node.args[at] = node.args[at].replaceAll('=127.0.0.1:', '=localhost:');
    }
    const leader = await startAll(cluster);
    assert.equal((await leader.publish(await leader.client(), 'sensors/named/temp', '1')).code, 0);
    assert.deepEqual(await sameRows(cluster.nodes, count('named')), [[1, 1]]);
}, { timeoutMs: 60000 });

test('a follower, then the leader stand still under load: nothing acknowledged is lost', async () => {
    const { cluster } = await overTls(undefined, LIMITS);
    const leader = await startAll(cluster);
    const [still, other] = cluster.followers(leader);
    const load = publisher(other.port, ['--qos', '1', '--prefix', 'still', '--clients', '4', '--window', '64']);
    const grows = async (what) => {
        const now = (await cluster.health(other)).apply_index;
        await until(what, async () => (await cluster.health(other)).apply_index > now + 100);
    };
    await grows('it runs');
    for (const node of [still, leader]) {
        node.signal('SIGSTOP');
        cleanup(() => node.signal('SIGCONT'));
        await pause(2500);
        await grows(`${node.name} is not needed`);
        node.signal('SIGCONT');
        await until('it is back', async () => (await cluster.health(node))?.status === 'ok');
    }
    assert.equal(load.child.exitCode, null, 'its connection was closed');
    load.child.kill('SIGTERM');
    const { code, out, err } = await load.done;
    assert.equal(code, 0, err);
    await caughtUp(cluster);
    assert.ok(checkRows(await sameRows(cluster.nodes, perDevice('still')), JSON.parse(out).clients) > 0);
}, { timeoutMs: 120000 });

test('a certificate that has run out is named; a new one is taken without a restart', async () => {
    const { cluster, ca } = await overTls();
    await startAll(cluster);
    const [a, b, old] = cluster.nodes;
    const file = (flag) => old.args[old.args.indexOf(flag) + 1];
    const put = ({ crt, key }) => {
        copyFileSync(crt, file('--certfile'));
        copyFileSync(key, file('--keyfile'));
    };
    await old.stop();
    put(ca.issue('node3-old', { san: 'IP:127.0.0.1', start: '200101000000Z', end: '200201000000Z' }));
    await startNode(old);
    for (const node of [a, b])
        await until('it is said', () => /can't reach a peer.*certificate has expired/.test(node.stderr));
    assert.notEqual((await cluster.health(old)).status, 'ok'); // nor do the others take its own connections
    assert.equal((await a.publish(await a.client(), 'sensors/expired/temp', '1')).code, 0);

    put(ca.issue('node3-new', { san: 'IP:127.0.0.1' }));
    old.signal('SIGHUP');
    await until('it is a member again', async () => (await cluster.health(old)).status === 'ok', 30000);
    assert.deepEqual(await sameRows(cluster.nodes, count('expired')), [[1, 1]]);
}, { timeoutMs: 60000 });

test('a node is removed, and added again', async () => {
    const { cluster } = await overTls();
    const leader = await startAll(cluster);
    const gone = cluster.followers(leader)[0];
    const ask = async (...args) => {
        const { code, stdout, stderr } = await run(process.env.CHRONOS, ['cluster', ...args, '--leader', `127.0.0.1:${leader.port}`], { timeoutMs: 60000 });
        assert.equal(code, 0, stdout + stderr);
    };
    const address = gone.args[gone.args.indexOf('--address') + 1];
    await ask('remove', gone.name);
    await until('it knows', async () => (await cluster.health(gone)).status === 'removed');
    const strangers = async () => (await leader.metrics()).chronos_peer_strangers_total;
    const before = await strangers();
    assert.equal((await leader.publish(await leader.client(), 'sensors/without/temp', '1')).code, 0);
    await ask('add', `${gone.name}=${address}`);
    await ask('promote', gone.name);
    assert.deepEqual(await sameRows(cluster.nodes, count('without')), [[1, 1]]);
    assert.ok((await strangers()) - before < 100, 'while it was out it did not hammer at the door');
}, { timeoutMs: 60000 });

test('files that are not there, or not all of them, are named', async () => {
    const ends = async (...args) => {
        const dir = tempDir();
        const { code, stderr } = await run(process.env.CHRONOS, ['node', '--id', 'node1', '--address', '127.0.0.1:0', '--data-dir', join(dir, 'd'), '--peers', 'node2=127.0.0.1:1', ...args]);
        assert.equal(code !== 0, true);
        return stderr;
    };
    assert.match(await ends('--peer-cafile', '/nowhere/ca.crt'), /peer-cafile \/nowhere\/ca\.crt: No such file/);
    assert.match(await ends('--peer-cafile', '/etc/passwd', '--peer-certfile', 'x'), /peer-certfile and peer-keyfile need each other/);
    assert.match(await ends('--peer-certfile', 'x', '--peer-keyfile', 'x'), /peer-certfile needs a peer-cafile/);
});
