// Sessions across nodes: taken over by another node, kept when theirs dies, wills fired once.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import mqtt from 'mqtt';
import { test, cleanup, until } from './lib/harness.mjs';
import { BUILD } from './lib/chronos.mjs';
import { Cluster, sameRows } from './lib/cluster.mjs';

const PUBLISHER = join(BUILD, 'tests', 'chr_test_crash_publisher');
const KILLS = process.env.LONG ? 100 : 10;
const seed = Number(process.env.CHR_SEED ?? Date.now() % 1000000);
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// mulberry32: the moments of the kills repeat with the seed.
function random(state) {
    return () => {
        state = (state + 0x6d2b79f5) | 0;
        let t = Math.imul(state ^ (state >>> 15), 1 | state);
        t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
        return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
}

/** Packets of these kinds do not leave it. */
function silence(client, kinds) {
    for (const name of ['_writePacket', '_sendPacket']) {
        const send = client[name]?.bind(client);
        if (send) client[name] = (packet, cb, ...rest) => (kinds.includes(packet.cmd) ? cb?.() : send(packet, cb, ...rest));
    }
}

/**
 * A connected client that keeps its session and does not come back by itself. What it knows of
 * flows is in stores, which another client of the same id can go on with (take: that client).
 */
async function durable(node, clientId, { take, will, expiry = 3600, clean = false, quiet, ...options } = {}) {
    const stores = take?.stores ??
        { incomingStore: new mqtt.Store({ clean: false }), outgoingStore: new mqtt.Store({ clean: false }) };
    const client = mqtt.connect(node.url(), {
        protocolVersion: 5, clientId, clean, resubscribe: false, reconnectPeriod: 0,
        properties: { sessionExpiryInterval: expiry }, will, ...stores, ...options,
    });
    client.stores = stores;
    client.got = [];
    client.left = undefined;
    client.on('error', () => {});
    client.on('message', (topic, payload, packet) =>
        client.got.push({ topic, payload: String(payload), qos: packet.qos, dup: packet.dup }));
    if (quiet) silence(client, quiet);
    client.on('disconnect', (packet) => (client.left = packet.reasonCode));
    cleanup(() => client.endAsync(true).catch(() => {}));
    const connack = await new Promise((resolve, reject) => {
        client.once('connect', resolve);
        client.once('close', () => reject(new Error(`${clientId} was not let in by ${node.name}`)));
    });
    client.present = connack.sessionPresent;
    return client;
}

const values = (client) => client.got.map((m) => m.payload);
const closed = (client) => until(`${client.options.clientId} is closed`, () => !client.connected);

/** All nodes have applied what any of them has now: a SUBSCRIBE answered by one is known to all. */
async function applied(nodes) {
    const index = async (n) => JSON.parse((await n.http('/health')).text).apply_index;
    const most = Math.max(...(await Promise.all(nodes.map(index))));
    for (const n of nodes) await until(`${n.name} has applied ${most}`, async () => (await index(n)) >= most);
}

async function startCluster(options) {
    return new Cluster(3, options).start();
}

test('take-over from node 1 by node 3: session present, 0x8E, what was queued comes once', async () => {
    const { nodes } = await startCluster();
    const old = await durable(nodes[0], 'mover', { quiet: ['puback', 'pubrec'] });
    assert.equal(old.present, false);
    await old.subscribeAsync({ 'm/1/#': { qos: 1 }, 'm/2/#': { qos: 2 } });
    await applied(nodes);
    const publisher = await nodes[1].client();
    const sent = [];
    for (let i = 0; i < 20; i++) {
        sent.push(String(i));
        await publisher.publishAsync(`m/${1 + (i % 2)}/x`, String(i), { qos: 1 + (i % 2) });
    }
    await until('some came there', () => old.got.length > 0);
    const now = await durable(nodes[2], 'mover');
    assert.equal(now.present, true);
    await closed(old);
    assert.equal(old.left, 0x8e);
    await until('all came', () => now.got.length >= sent.length);
    await publisher.publishAsync('m/2/x', 'last', { qos: 2 });
    await until('the last one', () => values(now).includes('last'));
    for (const qos of [1, 2]) // each in its order, and once
        assert.deepEqual(now.got.filter((m) => m.qos === qos && m.payload !== 'last').map((m) => m.payload),
            sent.filter((v) => 1 + (v % 2) === qos));
    assert.ok(now.got.some((m) => m.dup), 'what was sent there already bears DUP');
    // Nothing is left of it where it was: it comes back there as what it is elsewhere.
    const back = await durable(nodes[0], 'mover');
    assert.equal(back.present, true);
    await closed(now);
    assert.equal(now.left, 0x8e);
    await publisher.publishAsync('m/1/x', 'home', { qos: 1 });
    await until('home', () => values(back).includes('home'));
    assert.deepEqual(values(back), ['home']);
});

test('a QoS 2 message whose PUBREC came is not sent again by another node', async () => {
    const { nodes } = await startCluster();
    const old = await durable(nodes[0], 'halfway', { quiet: ['pubcomp'] });
    await old.subscribeAsync('half/way', { qos: 2 });
    await applied(nodes);
    const publisher = await nodes[1].client();
    await publisher.publishAsync('half/way', 'once', { qos: 2 });
    await until('it came', () => old.got.length === 1);
    await pause(200); // PUBREC is on its way into the log
    old.stream.destroy();
    const now = await durable(nodes[2], 'halfway', { take: old });
    assert.equal(now.present, true);
    await publisher.publishAsync('half/way', 'next', { qos: 2 });
    await until('the next one came', () => values(now).includes('next'));
    assert.deepEqual(values(now), ['next']);
});

test('clean start at another node ends the session here', async () => {
    const { nodes } = await startCluster();
    const old = await durable(nodes[0], 'cleaner');
    await old.subscribeAsync('c/#', { qos: 1 });
    await applied(nodes);
    const fresh = await durable(nodes[1], 'cleaner', { clean: true });
    assert.equal(fresh.present, false);
    await closed(old);
    assert.equal(old.left, 0x8e);
    const publisher = await nodes[2].client();
    await publisher.publishAsync('c/x', 'nobody', { qos: 1 });
    await fresh.subscribeAsync('c/#', { qos: 1 });
    await applied(nodes);
    await publisher.publishAsync('c/x', 'me', { qos: 1 });
    await until('it has its own', () => fresh.got.length > 0);
    assert.deepEqual(values(fresh), ['me']);
    // Parked here, then ended there by a connection that keeps nothing.
    await fresh.endAsync(true);
    const brief = await durable(nodes[2], 'cleaner', { clean: true, expiry: 0 });
    assert.equal(brief.present, false);
    await brief.endAsync();
    await until('it is gone everywhere', async () =>
        (await Promise.all(nodes.map((n) => n.metrics()))).every((m) => m.chronos_durable_sessions === 0));
    assert.equal((await durable(nodes[1], 'cleaner')).present, false);
});

test('filled from node 1, collected at node 2; subscriptions and packet ids come along', async () => {
    const { nodes } = await startCluster();
    const away = await durable(nodes[0], 'sleeper');
    await away.subscribeAsync({ 'q/1': { qos: 1 }, 'q/2': { qos: 2 } });
    await applied(nodes);
    await away.endAsync(true);
    const publisher = await nodes[0].client();
    const sent = [];
    for (let i = 0; i < 200; i++) {
        sent.push(String(i));
        await publisher.publishAsync(`q/${1 + (i % 2)}`, String(i), { qos: 2 });
    }
    const back = await durable(nodes[1], 'sleeper', { take: away });
    assert.equal(back.present, true);
    await until(`all ${sent.length}`, () => back.got.length >= sent.length);
    await publisher.publishAsync('q/1', 'live', { qos: 1 });
    await until('what comes now', () => values(back).includes('live'));
    for (const qos of [1, 2])
        assert.deepEqual(back.got.filter((m) => m.topic === `q/${qos}` && m.payload !== 'live').map((m) => m.payload),
            sent.filter((v) => 1 + (v % 2) === qos));
    await back.endAsync(true);
    const third = await durable(nodes[2], 'sleeper', { take: back });
    await publisher.publishAsync('q/2', 'at the third', { qos: 2 });
    await until('the third has it', () => values(third).includes('at the third'));
    assert.deepEqual(values(third).filter((v) => v !== 'live' && v !== 'at the third'), []);
});

test('clients that keep nothing: one connection of an id, whichever the nodes', async () => {
    const { nodes } = await startCluster();
    const plain = (node, more) => durable(node, 'twins', { clean: true, expiry: 0, ...more });
    const first = await plain(nodes[0]);
    const second = await plain(nodes[1]);
    await closed(first);
    assert.equal(first.left, 0x8e);
    // Nor with one that is kept, in either order.
    const kept = await durable(nodes[2], 'twins');
    await closed(second);
    assert.equal(second.left, 0x8e);
    const third = await plain(nodes[0]);
    await closed(kept);
    assert.equal(kept.left, 0x8e);
    assert.equal(third.connected, true);
    assert.equal((await Promise.all(nodes.map((n) => n.metrics())))
        .reduce((sum, m) => sum + m.chronos_durable_sessions, 0), 0);
    // Connecting everywhere at once leaves one.
    const many = await Promise.all(Array.from({ length: 9 }, (_, i) =>
        durable(nodes[i % 3], 'crowd', { clean: true, expiry: 0 }).catch(() => undefined)));
    await until('one is left', () => many.filter((c) => c?.connected).length === 1);
    await pause(300);
    assert.equal(many.filter((c) => c?.connected).length, 1);
});

test('max_durable_sessions counts those of the cluster', async () => {
    const { nodes } = await startCluster({ args: ['--max-durable-sessions', '3'] });
    for (let i = 0; i < 3; i++) {
        const client = await durable(nodes[i], `one-${i}`);
        await client.endAsync(true);
    }
    await until('node 1 has heard of all', async () => (await nodes[0].metrics()).chronos_durable_sessions === 3);
    await assert.rejects(durable(nodes[0], 'one more'));
    assert.equal((await durable(nodes[0], 'one-2')).present, true); // it is one of them
});

test('kill -9 of a node with 50 clients: each will once, delays honoured, expiry begins', async () => {
    const cluster = await startCluster({ args: ['--node-timeout', '2s'] });
    const { nodes } = cluster;
    const leader = await cluster.leader();
    const victim = leader; // the worst case: who declares it down must be elected first
    const [other, third] = nodes.filter((n) => n !== victim);
    const watcher = await durable(other, 'watcher');
    await watcher.subscribeAsync('wills/#', { qos: 1 });
    await applied(nodes);
    const will = (name, willDelayInterval) =>
        ({ topic: `wills/${name}`, payload: name, qos: 1, properties: { willDelayInterval } });
    await Promise.all(Array.from({ length: 50 }, (_, i) => {
        const name = `mortal-${i}`;
        // Some keep a session, some don't; of some the will waits.
        const late = i % 5 === 4;
        return durable(victim, name, { clean: i % 2 === 0, will: will(name, late ? 3 : 0),
            expiry: i % 2 && !(i % 3) ? 3600 : i % 2 ? 600 : late ? 60 : 0 });
    }));
    const brief = await durable(victim, 'brief', { expiry: 2 });
    await brief.subscribeAsync('x', { qos: 1 });
    const polite = await durable(victim, 'polite', { will: will('polite', 0) });
    await polite.endAsync();
    const back = await durable(victim, 'back', { will: will('back', 6) });
    const killed = Date.now();
    await victim.kill();
    await closed(back);
    const names = Array.from({ length: 50 }, (_, i) => `mortal-${i}`);
    await until('the first ones', () => watcher.got.length >= 40, 30000);
    const again = await durable(third, 'back', { will: will('back', 6) });
    assert.equal(again.present, true);
    await until(`all wills: ${watcher.got.length}`, () => watcher.got.length >= 50, 30000);
    assert.ok(Date.now() - killed > 5000, 'delays of 3 s after a time-out of 2 s');
    await pause(3000); // were there a second one, or `back`'s
    assert.deepEqual(values(watcher).sort(), names.sort());
    // `brief` has expired by now: no session is present.
    assert.equal((await durable(third, 'brief', { expiry: 2 })).present, false);
    const m = await other.metrics();
    assert.equal(m.chronos_wills_pending, 1, 'the one of `back`');
    victim.stderr = '';
    await victim.start();
    await cluster.leader();
    await pause(500);
    assert.equal(watcher.got.length, 50, 'a node that comes back has no wills to tell');
}, { timeoutMs: 120000 });

test('a node that comes back at once: its older start is closed', async () => {
    const cluster = await startCluster(); // node-timeout is 10 s: too long for this
    const { nodes } = cluster;
    const leader = await cluster.leader();
    const victim = nodes.find((n) => n !== leader);
    const watcher = await durable(leader, 'watcher');
    await watcher.subscribeAsync('wills/#', { qos: 1 });
    await applied(nodes);
    await durable(victim, 'mortal', { expiry: 0, clean: true, will: { topic: 'wills/mortal', payload: 'gone', qos: 1 } });
    const began = Date.now();
    await victim.restart();
    await until('the will', () => watcher.got.length > 0);
    assert.ok(Date.now() - began < 9000, 'it was not waited for');
    assert.deepEqual(values(watcher), ['gone']);
});

test('a node that stops tells the others', async () => {
    const cluster = await startCluster();
    const { nodes } = cluster;
    const watcher = await durable(nodes[0], 'watcher');
    await watcher.subscribeAsync('wills/#', { qos: 1 });
    await applied(nodes);
    await durable(nodes[1], 'mortal', { will: { topic: 'wills/mortal', payload: 'gone', qos: 1 } });
    const began = Date.now();
    await nodes[1].stop();
    await until('the will', () => watcher.got.length > 0);
    assert.ok(Date.now() - began < 8000);
    assert.deepEqual(values(watcher), ['gone']);
});

test('a partition: taken over by the majority, the old side learns of it when it is healed', async () => {
    const cluster = await startCluster({ links: true, args: ['--node-timeout', '2s'] });
    const { nodes } = cluster;
    const leader = await cluster.leader();
    for (const cutOff of [nodes.find((n) => n !== leader), leader]) {
        const name = cutOff === leader ? 'leader' : 'follower';
        const rest = nodes.filter((n) => n !== cutOff);
        const old = await durable(cutOff, `island-${name}`);
        const other = await durable(cutOff, `stays-${name}`);
        cluster.isolate(cutOff.number);
        await pause(700);
        // On its way when nobody can be asked: not acknowledged here, sent again there.
        const acked = [];
        for (let i = 0; i < 10; i++)
            old.publish(`sensors/${name}-${i % 2}/v`, String(i), { qos: 2 }, (err) => err || acked.push(i));
        await pause(300);
        assert.deepEqual(acked, []);
        await cluster.leader(rest);
        const now = await durable(rest[1], `island-${name}`, { take: old });
        assert.equal(now.present, true);
        assert.equal(old.connected, true, 'the island does not know');
        await until('all are taken there', async () => {
            const [[n]] = await rest[0].rows(`SELECT count(*) FROM readings WHERE device_id LIKE '${name}-%'`);
            return n === 10;
        });
        await until('the island is declared down', async () =>
            /is down: the sessions/.test(rest[0].stderr + rest[1].stderr), 30000);
        cluster.heal();
        await closed(old);
        await closed(other);
        assert.equal(old.left, 0x8e);
        await cluster.leader();
        const rows = await sameRows(nodes,
            `SELECT count(*), count(DISTINCT value), sum(value) FROM readings WHERE device_id LIKE '${name}-%'`);
        assert.deepEqual(rows, [[10, 10, 45]]);
        assert.equal((await durable(cutOff, `stays-${name}`)).present, true);
        for (const n of nodes) n.stderr = '';
    }
}, { timeoutMs: 120000 });

test(`QoS 2 publishers hop between nodes, ${KILLS} kills: every value once`, async () => {
    console.error(`seed ${seed}`);
    const next = random(seed);
    const cluster = await startCluster({ args: ['--node-timeout', '1s', '--hot-limit', '4MiB',
        '--checkpoint-log-bytes', '8MiB'] });
    const { nodes } = cluster;
    const child = spawn(PUBLISHER, ['--address', nodes.map((n) => `127.0.0.1:${n.port}`).join(','), '--qos', '2',
        '--prefix', 'hop', '--window', '32', '--ids', '48', '--hop', '200'], { stdio: ['ignore', 'pipe', 'pipe'] });
    cleanup(() => child.kill('SIGKILL'));
    let out = '', err = '';
    child.stdout.on('data', (t) => (out += t));
    child.stderr.on('data', (t) => (err += t));
    const done = new Promise((resolve) => child.on('close', resolve));
    let leaders = 0;
    for (let round = 0; round < KILLS; round++) {
        await pause(300 + next() * 1500);
        const leader = await cluster.leader();
        const victim = next() < 0.5 ? leader : nodes[Math.floor(next() * 3)];
        leaders += victim === leader;
        await victim.kill();
        if (next() < 0.7) await pause(next() * 1500);
        victim.stderr = '';
        await victim.start();
        await cluster.leader();
        assert.equal(child.exitCode, null, err);
    }
    child.kill('SIGTERM');
    assert.equal(await done, 0, err);
    const { clients } = JSON.parse(out);
    const rows = new Map((await sameRows(nodes, `SELECT device_id, count(*), count(DISTINCT value), max(value)
        FROM readings WHERE device_id LIKE 'hop-%' GROUP BY device_id ORDER BY device_id`)).map((r) => [r[0], r]));
    let total = 0, hops = 0;
    for (const { device, sent, acked, hops: h } of clients) {
        const [, count, distinct, max] = rows.get(device);
        const what = `${device}: sent ${sent} acked ${acked} rows ${count} distinct ${distinct} max ${max}`;
        assert.equal(acked, sent, what);
        assert.equal(count, sent, what);
        assert.equal(distinct, sent, what);
        assert.ok(sent > 48 * 3, `identifiers wrapped: ${what}`);
        total += sent;
        hops += h;
    }
    console.error(`${total} values, ${hops} hops, ${leaders} leaders killed`);
    assert.ok(hops > KILLS, 'they hopped');
}, { timeoutMs: 60000 + KILLS * 30000 });
