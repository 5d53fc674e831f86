// Sessions, their end, take-over, wills, keep alive.
import assert from 'node:assert/strict';
import { pick, scenario } from './scenario.mjs';

scenario('clean start', {
    shows: ['5.0 MQTT-3.1.2-4', '5.0 MQTT-3.1.2-5', '5.0 MQTT-3.1.2-6', '5.0 MQTT-3.1.2-23', '5.0 MQTT-3.1.3-2',
        '5.0 MQTT-3.1.3-5', '5.0 MQTT-3.1.4-4', '5.0 MQTT-3.1.4-5', '5.0 MQTT-3.2.0-1', '5.0 MQTT-3.2.2-2',
        '5.0 MQTT-3.2.2-3', '5.0 MQTT-3.2.2-8', '5.0 MQTT-4.1.0-1',
        '3.1.1 MQTT-3.1.2-4', '3.1.1 MQTT-3.1.2-6', '3.1.1 MQTT-3.1.3-2', '3.1.1 MQTT-3.1.3-5',
        '3.1.1 MQTT-3.1.4-3', '3.1.1 MQTT-3.1.4-4', '3.1.1 MQTT-3.2.0-1', '3.1.1 MQTT-3.2.2-1',
        '3.1.1 MQTT-3.2.2-2', '3.1.1 MQTT-3.2.2-3', '3.1.1 MQTT-4.1.0-1', '3.1.1 MQTT-4.1.0-2'],
}, async (t) => {
    const id = t.id('c'), topic = t.topic('a');
    const first = await t.connect({ id, ...t.kept });
    assert.deepEqual(pick(first.connack, 'reason', 'present'), { reason: 0, present: 0 });
    await first.subscribe([{ filter: topic, qos: 1 }]);
    await first.disconnect();
    const second = await t.connect({ id, ...t.kept });
    assert.deepEqual(pick(second.connack, 'reason', 'present'), { reason: 0, present: 1 });
    await second.publish(topic, 'still subscribed', { qos: 1 });
    assert.equal((await second.next()).payload, 'still subscribed');
    await second.disconnect();
    const clean = await t.connect({ id });
    assert.equal(clean.connack.present, 0);
    await clean.publish(topic, 'to nobody', { qos: 1 });
    await clean.nothing();
    await clean.disconnect();
    const last = await t.connect({ id, ...t.kept });
    assert.equal(last.connack.present, 0);
    await last.nothing();
});

scenario('messages wait for a session', {
    shows: ['5.0 MQTT-3.1.2-5', '5.0 MQTT-4.5.0-1', '5.0 MQTT-4.6.0-5',
        '3.1.1 MQTT-3.1.2-5', '3.1.1 MQTT-4.5.0-1', '3.1.1 MQTT-4.6.0-6'],
}, async (t) => {
    const id = t.id('c'), topic = t.topic('a');
    const away = await t.connect({ id, ...t.kept });
    await away.subscribe([{ filter: topic, qos: 2 }]);
    await away.disconnect();
    const publisher = await t.connect({ id: t.id('p') });
    for (let i = 0; i < 10; i++) await publisher.publish(topic, `${i}`, { qos: 1 + (i & 1) });
    const back = await t.connect({ id, ...t.kept });
    assert.equal(back.connack.present, 1);
    const got = await back.take(10);
    for (const qos of [1, 2])
        assert.deepEqual(got.filter((m) => m.qos === qos).map((m) => m.payload),
            qos === 1 ? ['0', '2', '4', '6', '8'] : ['1', '3', '5', '7', '9']);
    await back.nothing();
});

scenario('what was not acknowledged comes again', {
    shows: ['5.0 MQTT-4.3.2-3', '5.0 MQTT-4.3.3-3', '5.0 MQTT-4.4.0-1',
        '3.1.1 MQTT-4.3.2-1', '3.1.1 MQTT-4.4.0-1'],
}, async (t) => {
    const id = t.id('c'), topic = t.topic('a');
    const frozen = await t.connect({ id, ...t.kept });
    await frozen.subscribe([{ filter: topic, qos: 2 }]);
    await frozen.freeze();
    const publisher = await t.connect({ id: t.id('p') });
    await publisher.publish(topic, 'one', { qos: 1 });
    await publisher.publish(topic, 'two', { qos: 2 });
    await publisher.sync();
    await frozen.drop();
    const back = await t.connect({ id, ...t.kept });
    assert.deepEqual((await back.take(2)).map((m) => [m.payload, m.qos]), [['one', 1], ['two', 2]]);
    await back.nothing();
});

scenario('what comes again is marked', {
    shows: ['5.0 MQTT-3.3.1-1', '3.1.1 MQTT-3.3.1-1'],
    without: { mosquitto: 'its messages have no DUP flag' },
}, async (t) => {
    const id = t.id('c'), topic = t.topic('a');
    const frozen = await t.connect({ id, ...t.kept });
    await frozen.subscribe([{ filter: topic, qos: 1 }]);
    await frozen.freeze();
    const publisher = await t.connect({ id: t.id('p') });
    await publisher.publish(topic, 'again', { qos: 1 });
    await publisher.sync();
    await frozen.drop();
    const back = await t.connect({ id, ...t.kept });
    assert.deepEqual(pick(await back.next(), 'payload', 'dup'), { payload: 'again', dup: 1 });
    await publisher.publish(topic, 'new', { qos: 1 });
    assert.deepEqual(pick(await back.next(), 'payload', 'dup'), { payload: 'new', dup: 0 });
});

scenario('a session is taken over', {
    shows: ['5.0 MQTT-3.1.4-3', '5.0 MQTT-4.13.2-1', '3.1.1 MQTT-3.1.4-2'],
}, async (t) => {
    const id = t.id('c'), topic = t.topic('a');
    const first = await t.connect({ id, ...t.kept });
    await first.subscribe([{ filter: topic, qos: 1 }]);
    const second = await t.connect({ id, ...t.kept });
    assert.equal(second.connack.present, 1);
    assert.equal((await first.gone).reason, t.v5 ? 0x8e : undefined);
    await second.publish(topic, 'x', { qos: 1 });
    assert.equal((await second.next()).payload, 'x');
});

scenario('an assigned client identifier', {
    shows: ['5.0 MQTT-3.1.3-6', '5.0 MQTT-3.1.3-7', '5.0 MQTT-3.2.2-16', '3.1.1 MQTT-3.1.3-6'],
}, async (t) => {
    const topic = t.topic('a');
    const one = await t.connect({}), other = await t.connect({});
    if (t.v5) {
        assert.ok(one.connack.assigned);
        assert.ok(other.connack.assigned);
        assert.notEqual(one.connack.assigned, other.connack.assigned);
    }
    /* two sessions, not one that was taken over */
    for (const c of [one, other]) await c.subscribe([{ filter: topic }]);
    await one.publish(topic, 'both');
    assert.equal((await one.next()).payload, 'both');
    assert.equal((await other.next()).payload, 'both');
});

scenario('a session ends with its expiry', {
    shows: ['5.0 MQTT-3.1.2-8', '5.0 MQTT-3.1.2-23', '5.0 MQTT-3.2.2-3', '5.0 MQTT-4.1.0-2'],
}, async (t) => {
    const id = t.id('c'), topic = t.topic('will');
    const watcher = await t.connect({ id: t.id('w') });
    await watcher.subscribe([{ filter: topic, qos: 1 }]);
    const c = await t.connect({ id, session: 1, will: { topic, payload: 'ended', qos: 1, delay: 600 } });
    await c.drop();
    /* its end publishes what was still delayed (3.1.3.2.2) */
    assert.equal((await watcher.next()).payload, 'ended');
    assert.equal((await t.connect({ id, ...t.kept })).connack.present, 0);
});

scenario('DISCONNECT ends a session early', {
    shows: ['5.0 MQTT-4.1.0-2'],
}, async (t) => {
    const id = t.id('c');
    const c = await t.connect({ id, ...t.kept });
    await c.disconnect({ session: 0 });
    assert.equal((await t.connect({ id, ...t.kept })).connack.present, 0);
});

scenario('a will when the connection is lost', {
    shows: ['5.0 MQTT-3.1.2-7', '5.0 MQTT-3.1.2-8', '5.0 MQTT-3.1.2-12', '5.0 MQTT-3.1.2-14',
        '3.1.1 MQTT-3.1.2-8', '3.1.1 MQTT-3.1.2-16'],
}, async (t) => {
    const watcher = await t.connect({ id: t.id('w') });
    await watcher.subscribe([{ filter: t.topic('will/+'), qos: 2 }]);
    for (const qos of [0, 1, 2]) {
        const c = await t.connect({
            id: t.id(`c${qos}`), will: { topic: t.topic(`will/${qos}`), payload: `gone ${qos}`, qos },
        });
        await c.drop();
        assert.deepEqual(pick(await watcher.next(), 'topic', 'payload', 'qos', 'retain'),
            { topic: t.topic(`will/${qos}`), payload: `gone ${qos}`, qos, retain: 0 });
    }
    const late = await t.connect({ id: t.id('l') });
    await late.subscribe([{ filter: t.topic('will/+'), qos: 2 }]);
    await late.nothing();
});

scenario('a retained will', {
    shows: ['5.0 MQTT-3.1.2-15', '3.1.1 MQTT-3.1.2-17'],
}, async (t) => {
    const topic = t.topic('will');
    const watcher = await t.connect({ id: t.id('w') });
    await watcher.subscribe([{ filter: topic, qos: 1 }]);
    const c = await t.connect({ id: t.id('c'), will: { topic, payload: 'gone', qos: 1, retain: 1 } });
    await c.drop();
    assert.equal((await watcher.next()).retain, 0);
    const late = await t.connect({ id: t.id('l') });
    await late.subscribe([{ filter: topic, qos: 1 }]);
    assert.deepEqual(pick(await late.next(), 'payload', 'retain'), { payload: 'gone', retain: 1 });
    await late.publish(topic, '', { qos: 1, retain: 1 });
});

scenario('no will after DISCONNECT', {
    shows: ['5.0 MQTT-3.1.2-8', '5.0 MQTT-3.1.2-10', '5.0 MQTT-3.14.4-3',
        '3.1.1 MQTT-3.1.2-10', '3.1.1 MQTT-3.1.2-12', '3.1.1 MQTT-3.14.4-3'],
}, async (t) => {
    const id = t.id('c'), topic = t.topic('will');
    const watcher = await t.connect({ id: t.id('w') });
    await watcher.subscribe([{ filter: topic, qos: 1 }]);
    const c = await t.connect({ id, will: { topic, payload: 'no', qos: 1 } });
    await c.disconnect();
    const again = await t.connect({ id }); /* so the first connection has surely ended; without a will */
    await again.drop();
    const last = await t.connect({ id });
    await last.sync();
    await watcher.nothing();
});

scenario('a will after DISCONNECT with 0x04', {
    shows: ['5.0 MQTT-3.1.2-8', '5.0 MQTT-3.14.2-1'],
}, async (t) => {
    const topic = t.topic('will');
    const watcher = await t.connect({ id: t.id('w') });
    await watcher.subscribe([{ filter: topic, qos: 1 }]);
    const c = await t.connect({ id: t.id('c'), will: { topic, payload: 'with will', qos: 1 } });
    await c.disconnect({ reason: 4 });
    assert.equal((await watcher.next()).payload, 'with will');
});

scenario('will delay', {
    shows: ['5.0 MQTT-3.1.2-8'],
}, async (t) => {
    const topic = t.topic('will');
    const watcher = await t.connect({ id: t.id('w') });
    await watcher.subscribe([{ filter: topic, qos: 1 }]);
    const slow = await t.connect({ id: t.id('s'), ...t.kept, will: { topic, payload: 'later', qos: 1, delay: 1 } });
    const quick = await t.connect({ id: t.id('q'), ...t.kept, will: { topic, payload: 'at once', qos: 1 } });
    await slow.drop();
    await quick.drop();
    assert.deepEqual((await watcher.take(2)).map((m) => m.payload), ['at once', 'later']);
});

scenario('a client that comes back in time calls its will off', {
    shows: ['5.0 MQTT-3.1.3-9'],
}, async (t) => {
    const topic = t.topic('will'), id = t.id('back');
    const watcher = await t.connect({ id: t.id('w') });
    await watcher.subscribe([{ filter: topic, qos: 1 }]);
    const back = await t.connect({ id, ...t.kept, will: { topic, payload: 'not this', qos: 1, delay: 2 } });
    await back.drop();
    assert.equal((await t.connect({ id, ...t.kept })).connack.present, 1);
    /* one that is due later, so the first would have come by then */
    const away = await t.connect({ id: t.id('away'), ...t.kept, will: { topic, payload: 'this', qos: 1, delay: 2 } });
    await away.drop();
    assert.equal((await watcher.next()).payload, 'this');
    await watcher.nothing();
});

scenario('user properties of a will', {
    shows: ['5.0 MQTT-3.1.3-10'],
}, async (t) => {
    const topic = t.topic('will'), up = [['z', '1'], ['a', '2'], ['m', '3']];
    const watcher = await t.connect({ id: t.id('w') });
    await watcher.subscribe([{ filter: topic, qos: 1 }]);
    const c = await t.connect({ id: t.id('c'), will: { topic, payload: 'x', qos: 1, up } });
    await c.drop();
    assert.deepEqual((await watcher.next()).up, up);
});

scenario('keep alive', {
    shows: ['5.0 MQTT-3.1.2-22', '5.0 MQTT-3.2.2-22', '3.1.1 MQTT-3.1.2-24'],
    without: { mosquitto: 'takes no keep alive below 5 s' },
}, async (t) => {
    const topic = t.topic('will');
    const watcher = await t.connect({ id: t.id('w') });
    await watcher.subscribe([{ filter: topic, qos: 1 }]);
    const silent = await t.connect({ id: t.id('c'), keepalive: 1, will: { topic, payload: 'silent', qos: 1 } });
    if (t.v5) assert.equal(silent.connack.ska, undefined);
    await silent.freeze();
    assert.equal((await watcher.next()).payload, 'silent');
});

scenario('server keep alive', {
    shows: ['5.0 MQTT-3.1.2-21', '5.0 MQTT-3.1.2-22', '5.0 MQTT-3.2.2-21', '5.0 MQTT-3.12.4-1'],
    without: { paho: 'does not keep to it' },
    node: 'strict',
}, async (t) => {
    const topic = t.topic('will');
    /* asks for a minute, is given a second, and lives by it */
    const watcher = await t.connect({ id: t.id('w'), keepalive: 60 });
    assert.equal(watcher.connack.ska, 1);
    await watcher.subscribe([{ filter: topic, qos: 1 }]);
    const silent = await t.connect({ id: t.id('c'), keepalive: 60, will: { topic, payload: 'silent', qos: 1 } });
    await silent.freeze();
    assert.equal((await watcher.next()).payload, 'silent');
    await watcher.nothing();
});
