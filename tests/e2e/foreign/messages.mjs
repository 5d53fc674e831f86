// Messages: QoS, order, properties, expiry, aliases, limits, retained ones.
import assert from 'node:assert/strict';
import { pick, poll, scenario } from './scenario.mjs';

scenario('QoS 0, 1 and 2, there and back', {
    shows: ['5.0 MQTT-2.2.1-5', '5.0 MQTT-3.3.4-1', '5.0 MQTT-4.3.1-1', '5.0 MQTT-4.3.2-2', '5.0 MQTT-4.3.2-4',
        '5.0 MQTT-4.3.3-2', '5.0 MQTT-4.3.3-4', '5.0 MQTT-4.3.3-8', '5.0 MQTT-4.3.3-11',
        '3.1.1 MQTT-2.3.1-6', '3.1.1 MQTT-3.3.4-1', '3.1.1 MQTT-4.3.1-1', '3.1.1 MQTT-4.3.2-1',
        '3.1.1 MQTT-4.3.2-2', '3.1.1 MQTT-4.3.3-1', '3.1.1 MQTT-4.3.3-2'],
}, async (t) => {
    const topic = t.topic('a');
    const c = await t.connect({ id: t.id('c') }), p = await t.connect({ id: t.id('p') });
    assert.deepEqual(await c.subscribe([{ filter: topic, qos: 2 }]), [2]);
    for (const qos of [0, 1, 2]) {
        assert.equal((await p.publish(topic, `at ${qos}`, { qos })).reason, 0);
        assert.deepEqual(pick(await c.next(), 'topic', 'payload', 'qos', 'retain'),
            { topic, payload: `at ${qos}`, qos, retain: 0 });
    }
    await p.publish(topic, '', { qos: 1 });
    assert.equal((await c.next()).payload, '');
    const large = 'x'.repeat(100000);
    await p.publish(topic, large, { qos: 2 });
    assert.equal((await c.next()).payload, large);
    await c.nothing();
});

scenario('the lower QoS of message and subscription', {
    shows: ['5.0 MQTT-3.8.4-7', '5.0 MQTT-3.8.4-8', '3.1.1 MQTT-3.8.4-5', '3.1.1 MQTT-3.8.4-6'],
}, async (t) => {
    const p = await t.connect({ id: t.id('p') });
    for (const granted of [0, 1, 2]) {
        const topic = t.topic(`a${granted}`);
        assert.deepEqual(await p.subscribe([{ filter: topic, qos: granted }]), [granted]);
        for (const qos of [0, 1, 2]) {
            await p.publish(topic, 'x', { qos });
            assert.equal((await p.next()).qos, Math.min(qos, granted));
        }
    }
});

scenario('order', {
    shows: ['5.0 MQTT-2.2.1-4', '5.0 MQTT-4.2.0-1', '5.0 MQTT-4.3.2-1', '5.0 MQTT-4.3.3-1', '5.0 MQTT-4.6.0-5',
        '5.0 MQTT-4.6.0-6',
        '3.1.1 MQTT-2.3.1-4', '3.1.1 MQTT-4.2.0-1', '3.1.1 MQTT-4.6.0-5', '3.1.1 MQTT-4.6.0-6'],
}, async (t) => {
    const c = await t.connect({ id: t.id('c') }), p = await t.connect({ id: t.id('p') });
    for (const qos of [0, 1, 2]) {
        const topic = t.topic(`a${qos}`), wanted = Array.from({ length: 200 }, (_, i) => `${i}`);
        await c.subscribe([{ filter: topic, qos }]);
        await Promise.all(wanted.map((payload) => p.publish(topic, payload, { qos })));
        assert.deepEqual((await c.take(200)).map((m) => m.payload), wanted);
    }
    await c.nothing();
});

scenario('user properties in their order', {
    shows: ['5.0 MQTT-3.3.2-17', '5.0 MQTT-3.3.2-18', '5.0 MQTT-1.5.7-1'],
}, async (t) => {
    const topic = t.topic('a');
    const c = await t.connect({ id: t.id('c') });
    await c.subscribe([{ filter: topic, qos: 1 }]);
    /* Node's mqtt puts pairs of one name together, so there each name comes once */
    const up = [['z', 'last?'], ['a', ''], ['ü', '☃'], ['m', 'x=y']];
    if (t.library !== 'node') up.push(['a', 'again'], ['z', '']);
    await c.publish(topic, 'x', { qos: 1, up });
    assert.deepEqual((await c.next()).up, up);
});

scenario('properties are passed on', {
    shows: ['5.0 MQTT-3.3.2-4', '5.0 MQTT-3.3.2-15', '5.0 MQTT-3.3.2-16', '5.0 MQTT-3.3.2-20'],
}, async (t) => {
    const topic = t.topic('a');
    const c = await t.connect({ id: t.id('c') });
    await c.subscribe([{ filter: topic, qos: 1 }]);
    const all = { format: 1, ctype: 'text/plain', rtopic: t.topic('answer'), cdata: 'request 1' };
    await c.publish(topic, 'x', { qos: 1, ...all });
    assert.deepEqual(pick(await c.next(), ...Object.keys(all)), all);
    await c.publish(topic, 'y', { qos: 1 });
    assert.deepEqual(pick(await c.next(), ...Object.keys(all)),
        { format: undefined, ctype: undefined, rtopic: undefined, cdata: undefined });
});

scenario('request and response', {
    shows: ['5.0 MQTT-3.3.2-15', '5.0 MQTT-3.3.2-16'],
}, async (t) => {
    const asker = await t.connect({ id: t.id('q') }), server = await t.connect({ id: t.id('s') });
    await server.subscribe([{ filter: t.topic('ask'), qos: 1 }]);
    await asker.subscribe([{ filter: t.topic('answer'), qos: 1 }]);
    await asker.publish(t.topic('ask'), '6*7', { qos: 1, rtopic: t.topic('answer'), cdata: 'n1' });
    const request = await server.next();
    await server.publish(request.rtopic, '42', { qos: 1, cdata: request.cdata });
    assert.deepEqual(pick(await asker.next(), 'payload', 'cdata'), { payload: '42', cdata: 'n1' });
});

scenario('response information', {
    shows: ['5.0 MQTT-3.1.2-28'],
}, async (t) => {
    assert.equal((await t.connect({ id: t.id('a') })).connack.ri, undefined);
    assert.equal((await t.connect({ id: t.id('b'), rri: 0 })).connack.ri, undefined);
    assert.ok((await t.connect({ id: t.id('c'), rri: 1 })).connack.ri);
});

scenario('message expiry counts down', {
    shows: ['5.0 MQTT-3.3.2-6'],
}, async (t) => {
    const id = t.id('c'), topic = t.topic('a');
    const away = await t.connect({ id, ...t.kept });
    await away.subscribe([{ filter: topic, qos: 1 }]);
    await away.disconnect();
    const p = await t.connect({ id: t.id('p') });
    await p.publish(topic, 'x', { qos: 1, expiry: 1000 });
    /* a second passes: a retained message of one second has gone */
    await p.publish(t.topic('clock'), 'tick', { qos: 1, retain: 1, expiry: 1 });
    await gone(t, t.topic('clock'));
    const { expiry } = await (await t.connect({ id, ...t.kept })).next();
    assert.ok(expiry > 900 && expiry < 1000, `${expiry}`);
});

/** Until nothing is retained for topic. */
async function gone(t, topic) {
    const c = await t.connect({ id: t.id('clock') });
    await poll('a retained message to expire', async () => {
        await c.subscribe([{ filter: topic }]);
        await c.subscribe([{ filter: t.topic('mark') }]);
        await c.publish(t.topic('mark'), 'mark');
        let none = true;
        while ((await c.next()).topic === topic) none = false;
        return none;
    });
}

scenario('what has expired is not delivered', {
    shows: ['5.0 MQTT-3.3.2-5'],
}, async (t) => {
    const id = t.id('c'), topic = t.topic('a');
    const away = await t.connect({ id, ...t.kept });
    await away.subscribe([{ filter: topic, qos: 1 }]);
    await away.disconnect();
    const p = await t.connect({ id: t.id('p') });
    await p.publish(topic, 'short', { qos: 1, expiry: 1 });
    await p.publish(topic, 'long', { qos: 1 });
    await p.publish(t.topic('clock'), 'tick', { qos: 1, retain: 1, expiry: 1 });
    await gone(t, t.topic('clock'));
    const back = await t.connect({ id, ...t.kept });
    assert.equal((await back.next()).payload, 'long');
    await back.nothing();
});

scenario('topic aliases of the client', {
    shows: ['5.0 MQTT-3.3.2-12'],
    without: { paho: 'refuses to send an empty topic' },
}, async (t) => {
    const c = await t.connect({ id: t.id('c') });
    assert.ok(c.connack.amax >= 2);
    await c.subscribe([{ filter: t.topic('+'), qos: 1 }]);
    const aliases = [1, c.connack.amax];
    for (const alias of aliases) await c.publish(t.topic(`${alias}`), 'named', { qos: 1, alias });
    for (const alias of aliases) await c.publish('', 'by alias', { qos: 1, alias });
    assert.deepEqual((await c.take(4)).map((m) => [m.topic, m.payload, m.alias]), [
        ...aliases.map((a) => [t.topic(`${a}`), 'named', undefined]),
        ...aliases.map((a) => [t.topic(`${a}`), 'by alias', undefined])]);
});

scenario('topic aliases of the server', {
    shows: ['5.0 MQTT-3.1.2-26', '5.0 MQTT-3.3.2-10', '5.0 MQTT-3.3.2-11'],
    without: { mosquitto: 'takes an empty topic for an error' },
}, async (t) => {
    const c = await t.connect({ id: t.id('c'), amax: 2 }), p = await t.connect({ id: t.id('p') });
    await c.subscribe([{ filter: t.topic('+'), qos: 1 }]);
    const topics = ['a', 'b', 'c'].map((x) => t.topic(x));
    for (let round = 0; round < 6; round++)
        for (const topic of topics) await p.publish(topic, topic, { qos: 1 });
    const named = new Map();
    let aliased = 0;
    for (const m of await c.take(18)) {
        if (m.alias !== undefined) {
            assert.ok(m.alias >= 1 && m.alias <= 2, `alias ${m.alias}`);
            /* paho leaves it to the application, Node's mqtt fills the topic in */
            if (m.topic) named.set(m.alias, m.topic);
            else m.topic = named.get(m.alias);
            aliased++;
        }
        assert.equal(m.topic, m.payload);
    }
    assert.ok(aliased >= 6, `${aliased} aliases`);
});

scenario('no topic aliases unless asked for', {
    shows: ['5.0 MQTT-3.1.2-27'],
}, async (t) => {
    const topic = t.topic('a');
    for (const amax of [undefined, 0]) {
        const c = await t.connect({ id: t.id('c'), amax });
        await c.subscribe([{ filter: topic }]);
        for (let i = 0; i < 3; i++) await c.publish(topic, 'x');
        for (const m of await c.take(3)) assert.deepEqual(pick(m, 'topic', 'alias'), { topic, alias: undefined });
        await c.disconnect();
    }
});

scenario('receive maximum', {
    shows: ['5.0 MQTT-3.3.4-9', '5.0 MQTT-3.3.4-10', '5.0 MQTT-4.9.0-2', '5.0 MQTT-4.9.0-3'],
    without: { mosquitto: 'its messages have no DUP flag' },
}, async (t) => {
    const id = t.id('c'), topic = t.topic('a');
    const frozen = await t.connect({ id, ...t.kept, rmax: 3 });
    await frozen.subscribe([{ filter: topic, qos: 2 }]);
    await frozen.freeze();
    const p = await t.connect({ id: t.id('p') });
    for (let i = 0; i < 8; i++) await p.publish(topic, `${i}`, { qos: 1 });
    await p.sync();
    await frozen.drop();
    /* those that had been sent are marked as repeated */
    const back = await t.connect({ id, ...t.kept, rmax: 3 });
    const got = await back.take(8);
    assert.deepEqual(got.map((m) => m.payload), ['0', '1', '2', '3', '4', '5', '6', '7']);
    assert.deepEqual(got.map((m) => m.dup), [1, 1, 1, 0, 0, 0, 0, 0]);
});

scenario("the server's receive maximum", {
    shows: ['5.0 MQTT-3.3.4-7', '5.0 MQTT-4.9.0-1'],
    without: { node: 'does not keep to it' },
    node: 'strict',
}, async (t) => {
    const c = await t.connect({ id: t.id('c') });
    assert.equal(c.connack.rmax, 5);
    const topic = t.topic('a'), wanted = Array.from({ length: 50 }, (_, i) => `${i}`);
    await c.subscribe([{ filter: topic, qos: 2 }]);
    await Promise.all(wanted.map((payload) => c.publish(topic, payload, { qos: 2 })));
    assert.deepEqual((await c.take(50)).map((m) => m.payload), wanted);
});

scenario("the client's maximum packet size", {
    shows: ['5.0 MQTT-3.1.2-24', '5.0 MQTT-3.1.2-25'],
}, async (t) => {
    const topic = t.topic('a');
    const small = await t.connect({ id: t.id('s'), mps: 300 }), all = await t.connect({ id: t.id('a') });
    for (const c of [small, all]) await c.subscribe([{ filter: topic, qos: 1 }]);
    for (const size of [10, 1000, 20]) await all.publish(topic, 'x'.repeat(size), { qos: 1 });
    assert.deepEqual((await all.take(3)).map((m) => m.payload.length), [10, 1000, 20]);
    assert.deepEqual((await small.take(2)).map((m) => m.payload.length), [10, 20]);
    await small.nothing();
});

scenario('a publish that is refused', {
    shows: ['5.0 MQTT-3.4.2-1', '5.0 MQTT-3.5.2-1', '5.0 MQTT-4.3.3-9'],
}, async (t) => {
    const c = await t.connect({ id: t.id('c') });
    for (const qos of [1, 2]) assert.equal((await c.publish('$SYS/mine', 'x', { qos })).reason, 0x87);
    assert.equal((await c.publish(t.topic('a'), 'x', { qos: 1 })).reason & 0x80, 0);
    await c.subscribe([{ filter: t.topic('b'), qos: 2 }]);
    await c.publish(t.topic('b'), 'goes on', { qos: 2 });
    assert.equal((await c.next()).payload, 'goes on');
});

scenario('retained messages', {
    shows: ['5.0 MQTT-3.3.1-5', '5.0 MQTT-3.3.1-6', '5.0 MQTT-3.3.1-7', '5.0 MQTT-3.3.1-8', '5.0 MQTT-3.3.1-9',
        '3.1.1 MQTT-3.1.2-7', '3.1.1 MQTT-3.3.1-5', '3.1.1 MQTT-3.3.1-6', '3.1.1 MQTT-3.3.1-8',
        '3.1.1 MQTT-3.3.1-9', '3.1.1 MQTT-3.3.1-10', '3.1.1 MQTT-3.3.1-11', '3.1.1 MQTT-3.3.1-12'],
}, async (t) => {
    const topic = t.topic('a');
    const p = await t.connect({ id: t.id('p') }), standing = await t.connect({ id: t.id('s') });
    await standing.subscribe([{ filter: topic, qos: 2 }]);
    const fresh = async () => {
        const c = await t.connect({ id: t.id('f') });
        await c.subscribe([{ filter: topic, qos: 2 }]);
        return c;
    };
    /* One at a time: a library hands over QoS 2 at PUBREL, and what came at QoS 1 meanwhile before it
     * (5.0 section 4.6 orders messages of the same QoS). */
    for (const [payload, options] of [['first', { qos: 1, retain: 1 }], ['second', { qos: 2, retain: 1 }],
        ['not kept', { qos: 1 }]]) {
        await p.publish(topic, payload, options);
        assert.deepEqual(pick(await standing.next(), 'payload', 'retain'), { payload, retain: 0 });
    }
    const one = await fresh();
    assert.deepEqual(pick(await one.next(), 'payload', 'qos', 'retain'), { payload: 'second', qos: 2, retain: 1 });
    await one.nothing();
    await one.disconnect();
    await p.disconnect(); /* what it retained stays */
    const two = await fresh();
    assert.equal((await two.next()).payload, 'second');
    await two.publish(topic, '', { qos: 1, retain: 1 });
    assert.deepEqual(pick(await two.next(), 'payload', 'retain'), { payload: '', retain: 0 });
    await two.disconnect();
    await (await fresh()).nothing();
});

scenario('retain handling', {
    shows: ['5.0 MQTT-3.3.1-9', '5.0 MQTT-3.3.1-10', '5.0 MQTT-3.3.1-11', '5.0 MQTT-3.8.4-4'],
}, async (t) => {
    const topic = t.topic('a');
    const c = await t.connect({ id: t.id('c') });
    await c.publish(topic, 'kept', { qos: 1, retain: 1 });
    await c.subscribe([{ filter: topic, qos: 1, rh: 2 }]);
    await c.nothing();
    await c.subscribe([{ filter: topic, qos: 1, rh: 1 }]); /* not a new one */
    await c.nothing();
    await c.subscribe([{ filter: topic, qos: 1, rh: 0 }]);
    assert.equal((await c.next()).payload, 'kept');
    await c.unsubscribe([topic]);
    await c.subscribe([{ filter: topic, qos: 1, rh: 1 }]); /* a new one */
    assert.equal((await c.next()).payload, 'kept');
    await c.nothing();
});

scenario('retain as published', {
    shows: ['5.0 MQTT-3.3.1-12', '5.0 MQTT-3.3.1-13'],
}, async (t) => {
    const topic = t.topic('a');
    const plain = await t.connect({ id: t.id('c') }), as = await t.connect({ id: t.id('d') });
    await plain.subscribe([{ filter: topic, qos: 1 }]);
    await as.subscribe([{ filter: topic, qos: 1, rap: true }]);
    await plain.publish(topic, 'kept', { qos: 1, retain: 1 });
    await plain.publish(topic, 'not kept', { qos: 1 });
    assert.deepEqual((await plain.take(2)).map((m) => m.retain), [0, 0]);
    assert.deepEqual((await as.take(2)).map((m) => m.retain), [1, 0]);
});

scenario('topics are taken as they are', {
    shows: ['5.0 MQTT-1.5.4-3', '5.0 MQTT-3.3.2-1', '5.0 MQTT-3.3.2-3', '5.0 MQTT-4.7.3-4',
        '3.1.1 MQTT-1.5.3-3', '3.1.1 MQTT-3.3.2-1', '3.1.1 MQTT-3.3.2-3', '3.1.1 MQTT-4.7.3-4'],
}, async (t) => {
    const names = ['ü/☃', 'u\u0308', '\ufeffbom', 'A', 'a', 'x//y', 'x/y', 'x/y/', ' blank '].map((x) => t.topic(x));
    const c = await t.connect({ id: t.id('c') });
    for (const filter of names) await c.subscribe([{ filter, qos: 1 }]);
    for (const topic of names) await c.publish(topic, topic, { qos: 1 });
    assert.deepEqual((await c.take(names.length)).map((m) => [m.topic, m.payload]), names.map((x) => [x, x]));
    await c.nothing();
});
