// Sessions, their queues, retained messages and wills outlive the node: kill -9 while messages
// flow, again and again. Nothing acknowledged is lost, QoS 2 is never doubled.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import mqtt from 'mqtt';
import { test, cleanup } from './lib/harness.mjs';
import { BIN, Chronos, run, tempDir } from './lib/chronos.mjs';
import { freePort } from './lib/port.mjs';

const ROUNDS = process.env.LONG ? 100 : 3;
const SESSIONS = process.env.LONG ? 1000 : 50;
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
const next = random(seed);
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function until(what, condition, timeoutMs = 60000) {
    const end = Date.now() + timeoutMs;
    while (!condition()) {
        assert.ok(Date.now() < end, `waited too long until ${what()}`);
        await pause(10);
    }
}

async function untilAsync(what, condition, timeoutMs = 60000) {
    const end = Date.now() + timeoutMs;
    while (!(await condition())) {
        assert.ok(Date.now() < end, `waited too long until ${what}`);
        await pause(20);
    }
}

/** A client that keeps its session, and comes back by itself. */
function persistent(port, clientId, options = {}) {
    // What it knows of QoS 2 flows outlives end() only in stores of one's own.
    const stores = { incomingStore: new mqtt.Store({ clean: false }), outgoingStore: new mqtt.Store({ clean: false }) };
    const client = mqtt.connect(`mqtt://127.0.0.1:${port}`, {
        protocolVersion: 5, clientId, clean: false, resubscribe: false, reconnectPeriod: 50,
        properties: { sessionExpiryInterval: 3600 }, ...stores, ...options,
    });
    client.on('error', () => {});
    client.sessions = [];
    client.wake = () => client.reconnect(stores);
    client.on('connect', (connack) => client.sessions.push(connack.sessionPresent));
    cleanup(() => client.endAsync(true).catch(() => {}));
    return client;
}

test(`${SESSIONS} sessions, ${ROUNDS} kills`, async () => {
    console.error(`seed ${seed}`);
    const port = await freePort();
    // Small limits, so that kills fall into checkpoints, too.
    const node = new Chronos(join(tempDir(), 'data'), ['--address', `127.0.0.1:${port}`,
        '--checkpoint-log-bytes', '1MiB', '--max-queued-messages', '0']);
    await node.start();

    // Subscribers: what each was given, by topic.
    const subscribers = [];
    for (let i = 0; i < SESSIONS; i++) {
        const s = persistent(port, `sub${i}`);
        s.got = { 1: [], 2: [] };
        s.on('message', (topic, payload) => s.got[Number(topic.slice(-1))].push(Number(payload)));
        subscribers.push(s);
    }
    await Promise.all(subscribers.map((s, i) =>
        s.subscribeAsync({ [`d/${i}/q1`]: { qos: 1 }, [`d/${i}/q2`]: { qos: 2 } })));
    const watcher = persistent(port, 'watcher');
    const wills = [];
    watcher.on('message', (topic, payload) => wills.push(String(payload)));
    await watcher.subscribeAsync('wills/#', { qos: 2 });
    const mortal = persistent(port, 'mortal',
        { will: { topic: 'wills/mortal', payload: 'gone', qos: 2, retain: true } });

    const publishers = Array.from({ length: 4 }, (_, p) => persistent(port, `pub${p}`));
    const acked = Array.from({ length: SESSIONS }, () => ({ 1: [], 2: [] }));
    let retainedSent = 0, retainedAcked = 0, count = 0, inflight = 0, running = true, acknowledged = 0;
    const publish = (publisher, topic, payload, options, done) => {
        inflight++;
        publisher.publish(topic, payload, options, (err) => {
            inflight--;
            if (!err) done();
        });
    };
    const load = (async () => {
        while (running) {
            if (inflight < 200) {
                for (let k = 0; k < 20; k++) {
                    const i = count % SESSIONS, n = ++count, qos = 1 + (n % 2 ? 1 : 0);
                    publish(publishers[i % 4], `d/${i}/q${qos}`, String(n), { qos }, () => {
                        acked[i][qos].push(n);
                        acknowledged++;
                    });
                }
                const value = ++retainedSent;
                publish(publishers[0], 'kept/value', String(value), { qos: 1, retain: true },
                    () => (retainedAcked = value));
            }
            await pause(2);
        }
    })();

    for (let round = 0; round < ROUNDS; round++) {
        await until(() => `mortal is connected in round ${round}`, () => mortal.connected);
        // Some sleep through the kill, their messages are queued.
        const asleep = subscribers.filter(() => next() < 0.5);
        await Promise.all(asleep.map((s) => (s.connected ? s.endAsync(true) : null)));
        const before = acknowledged;
        await until(() => `100 more than ${before} are acknowledged`, () => acknowledged >= before + 100);
        await pause(next() * 300);
        await node.kill();
        node.stderr = '';
        if (round % 10 === 0) {
            const check = await run(BIN, ['check', '--data-dir', node.dataDir], { timeoutMs: 60000 });
            assert.equal(check.code, 0, `chronos check: ${check.stdout}${check.stderr}`);
        }
        await node.start();
        for (const s of asleep) s.wake();
        await until(() => `will ${round + 1} came, not ${wills.length}`, () => wills.length > round);
    }
    running = false;
    await load;
    await until(() => `${inflight} publishes are acknowledged`, () => inflight === 0);
    const missing = () => subscribers.flatMap((s, i) => [1, 2].flatMap((qos) => {
        const got = new Set(s.got[qos]);
        return acked[i][qos].filter((n) => !got.has(n)).map((n) => `${i}:q${qos}:${n}`);
    }));
    await until(() => `nothing is missing: ${missing().slice(0, 10)}`, () => missing().length === 0);

    let total = 0;
    subscribers.forEach((s, i) => {
        assert.equal(new Set(s.got[2]).size, s.got[2].length, `QoS 2 doubled for ${i}: ${s.got[2]}`);
        assert.deepEqual(s.got[2], [...s.got[2]].sort((a, b) => a - b), `order of QoS 2 for ${i}`);
        assert.deepEqual(s.sessions, s.sessions.map((_, k) => k > 0), `session present of ${i}`);
        total += acked[i][1].length + acked[i][2].length;
    });
    console.error(`${total} messages acknowledged`);
    assert.ok(total >= ROUNDS * 100, `only ${total} messages: nothing was shown`);
    assert.deepEqual(wills, Array(ROUNDS).fill('gone'), 'each kill took the will once');

    // What is retained is the last one, or one that was sent after it.
    const seen = {};
    const reader = await node.client();
    reader.on('message', (topic, payload) => (seen[topic] = String(payload)));
    await reader.subscribeAsync(['kept/#', 'wills/#'], { qos: 1 });
    await until(() => 'retained messages come', () => Object.keys(seen).length === 2);
    assert.ok(Number(seen['kept/value']) >= retainedAcked, `${seen['kept/value']} of ${retainedAcked}`);
    assert.equal(seen['wills/mortal'], 'gone');
    await Promise.all([...subscribers, ...publishers, watcher, mortal].map((c) => c.endAsync(true)));
}, { timeoutMs: 60000 + ROUNDS * 20000 });

test('a will: delayed, cancelled, fired while the node was down, into a table', async () => {
    const port = await freePort();
    const node = new Chronos(join(tempDir(), 'data'), ['--address', `127.0.0.1:${port}`]);
    await node.start();
    const watcher = persistent(port, 'watcher');
    const wills = [];
    watcher.on('message', (topic, payload) => wills.push(`${topic}=${payload}`));
    await watcher.subscribeAsync('sensors/#', { qos: 1 });
    const will = (topic, payload, willDelayInterval) =>
        ({ reconnectPeriod: 0, will: { topic, payload, qos: 1, properties: { willDelayInterval } } });
    const late = persistent(port, 'late', will('sensors/late/v', '1', 1));
    const back = persistent(port, 'back', will('sensors/back/v', '2', 3600));
    const polite = persistent(port, 'polite', will('sensors/polite/v', '3', 0));
    await until(() => 'all are connected', () => late.connected && back.connected && polite.connected);
    await polite.endAsync();
    await untilAsync('its leave is in the log', async () => (await node.metrics()).chronos_wills_pending === 2);
    await node.kill();
    await node.start();
    const again = persistent(port, 'back', { reconnectPeriod: 0 });
    await until(() => 'it is back', () => again.connected);
    assert.deepEqual(again.sessions, [true]);
    await again.endAsync();
    await until(() => `the delay passes: ${wills}`, () => wills.length > 0);
    await until(() => 'watcher is back', () => watcher.connected);
    await watcher.publishAsync('sensors/mark/v', '4', { qos: 1 });
    await until(() => `the mark comes: ${wills}`, () => wills.length > 1);
    assert.deepEqual(wills, ['sensors/late/v=1', 'sensors/mark/v=4']);
    const rows = await node.rows("SELECT device_id, value FROM readings ORDER BY device_id");
    assert.deepEqual(rows, [['late', 1], ['mark', 4]]);
    await watcher.endAsync(true);
}, { timeoutMs: 60000 });

test('a will that its table refuses is taken all the same, once', async () => {
    const port = await freePort();
    const node = new Chronos(join(tempDir(), 'data'), ['--address', `127.0.0.1:${port}`]);
    await node.start();
    const rejects = async () => Number((await node.rows(
        "SELECT count(*) FROM chronos_rejects WHERE topic = 'sensors/dev1/status'"))[0][0]);
    const metric = async (name) => (await node.metrics())[name];
    // `readings` wants a number there.
    const dies = async (clientId, before) => {
        const client = persistent(port, clientId, {
            reconnectPeriod: 0,
            will: { topic: 'sensors/dev1/status', payload: 'offline', qos: 1, retain: true },
        });
        await until(() => `${clientId} is connected`, () => client.connected);
        assert.equal(await metric('chronos_wills_pending'), 1);
        await before?.(client);
        client.stream.destroy();
        await untilAsync('the will is taken', async () => await metric('chronos_wills_pending') === 0);
    };
    await dies('kept');
    assert.equal(await rejects(), 1);
    // Nor when there are more rejects than are kept: it is counted, and gone.
    await dies('counted', async (client) => {
        const publish = () => new Promise((resolve) =>
            client.publish('sensors/dev2/status', 'x'.repeat(500000), { qos: 1 },
                (err, packet) => resolve(err?.code ?? packet?.reasonCode)));
        for (let i = 0; ; i++) {
            assert.ok(i < 100, 'rejects are not limited');
            const told = await Promise.all(Array.from({ length: 8 }, publish));
            if (told.includes(0x97)) break;
        }
    });
    const kept = await rejects();
    await node.kill();
    await node.start();
    assert.equal(await metric('chronos_wills_pending'), 0);
    assert.equal(await rejects(), kept);
    const check = persistent(port, 'after');
    await until(() => 'it is connected', () => check.connected);
    await check.publishAsync('sensors/dev1/temp', '1', { qos: 1 });
    assert.equal(await rejects(), kept);
    await check.endAsync(true);
}, { timeoutMs: 120000 });
