// Subscriptions: options, identifiers, overlapping and shared ones, UNSUBSCRIBE.
import assert from 'node:assert/strict';
import { pick, scenario } from './scenario.mjs';

scenario('several filters, a code for each', {
    shows: ['5.0 MQTT-2.2.1-6', '5.0 MQTT-3.8.4-1', '5.0 MQTT-3.8.4-2', '5.0 MQTT-3.8.4-5', '5.0 MQTT-3.8.4-6',
        '5.0 MQTT-3.8.4-7', '5.0 MQTT-3.9.3-1', '5.0 MQTT-3.9.3-2',
        '3.1.1 MQTT-2.3.1-7', '3.1.1 MQTT-3.8.4-1', '3.1.1 MQTT-3.8.4-2', '3.1.1 MQTT-3.8.4-4',
        '3.1.1 MQTT-3.8.4-5', '3.1.1 MQTT-3.9.3-1', '3.1.1 MQTT-3.9.3-2'],
}, async (t) => {
    const c = await t.connect({ id: t.id('c') });
    const filters = [t.topic('a'), '$chronos/sql', t.topic('b/+')].map((filter) => ({ filter, qos: 1 }));
    assert.deepEqual(await c.subscribe(filters), [1, t.v5 ? 0x87 : 0x80, 1]);
    for (const topic of [t.topic('a'), t.topic('b/c')]) {
        await c.publish(topic, 'x', { qos: 1 });
        assert.equal((await c.next()).topic, topic);
    }
});

scenario('overlapping subscriptions', {
    shows: ['5.0 MQTT-3.3.4-2', '3.1.1 MQTT-3.3.5-1'],
}, async (t) => {
    const c = await t.connect({ id: t.id('c') });
    await c.subscribe([{ filter: t.topic('#'), qos: 0 }]);
    await c.subscribe([{ filter: t.topic('a'), qos: 2 }]);
    await c.subscribe([{ filter: t.topic('+'), qos: 1 }]);
    await c.publish(t.topic('a'), 'x', { qos: 2 });
    assert.equal((await c.next()).qos, 2);
    await c.nothing();
});

scenario('a subscription identifier', {
    shows: ['5.0 MQTT-3.3.4-3'],
}, async (t) => {
    const c = await t.connect({ id: t.id('c') });
    await c.subscribe([{ filter: t.topic('a/#'), qos: 1 }], { id: 268435455 });
    await c.subscribe([{ filter: t.topic('b'), qos: 1 }]);
    await c.publish(t.topic('a/b'), 'x', { qos: 1 });
    assert.deepEqual((await c.next()).sub, [268435455]);
    await c.publish(t.topic('b'), 'y', { qos: 1 });
    assert.equal((await c.next()).sub, undefined);
    await c.subscribe([{ filter: t.topic('a/#'), qos: 1 }], { id: 7 }); /* another for the same one */
    await c.publish(t.topic('a/b'), 'z', { qos: 1 });
    assert.deepEqual((await c.next()).sub, [7]);
    await c.nothing();
});

scenario('subscription identifiers', {
    shows: ['5.0 MQTT-3.3.4-3', '5.0 MQTT-3.3.4-4'],
    without: { mosquitto: 'takes more than one of them in a message for an error' },
}, async (t) => {
    const c = await t.connect({ id: t.id('c') });
    await c.subscribe([{ filter: t.topic('a/#'), qos: 1 }], { id: 1 });
    await c.subscribe([{ filter: t.topic('a/+'), qos: 0 }], { id: 268435455 });
    await c.subscribe([{ filter: t.topic('a/b'), qos: 0 }]);
    await c.publish(t.topic('a/b'), 'both', { qos: 1 });
    const both = await c.next();
    assert.deepEqual([...both.sub].sort((x, y) => x - y), [1, 268435455]);
    assert.equal(both.qos, 1);
    await c.publish(t.topic('a/b/c'), 'one', { qos: 1 });
    assert.deepEqual((await c.next()).sub, [1]);
    await c.unsubscribe([t.topic('a/#')]);
    await c.publish(t.topic('a/b'), 'the other', { qos: 1 });
    assert.deepEqual((await c.next()).sub, [268435455]);
    await c.nothing();
});

scenario('no local', {
    shows: ['5.0 MQTT-3.8.3-3'],
}, async (t) => {
    const topic = t.topic('a');
    const c = await t.connect({ id: t.id('c') }), other = await t.connect({ id: t.id('o') });
    await c.subscribe([{ filter: topic, qos: 1, nl: true }]);
    await c.publish(topic, 'mine', { qos: 1 });
    await other.publish(topic, "another's", { qos: 1 });
    assert.equal((await c.next()).payload, "another's");
    await c.nothing();
});

scenario('the same filter again replaces the subscription', {
    shows: ['5.0 MQTT-3.8.4-3', '3.1.1 MQTT-3.8.4-3'],
}, async (t) => {
    const topic = t.topic('a');
    const c = await t.connect({ id: t.id('c') });
    await c.publish(topic, 'kept', { qos: 1, retain: 1 });
    assert.deepEqual(await c.subscribe([{ filter: topic, qos: 2 }]), [2]);
    assert.equal((await c.next()).payload, 'kept');
    assert.deepEqual(await c.subscribe([{ filter: topic, qos: 0 }]), [0]);
    assert.equal((await c.next()).payload, 'kept'); /* what is retained comes again */
    await c.publish(topic, 'once', { qos: 2 });
    assert.deepEqual(pick(await c.next(), 'payload', 'qos'), { payload: 'once', qos: 0 });
    await c.nothing();
    await c.publish(topic, '', { qos: 1, retain: 1 });
});

scenario('unsubscribing', {
    shows: ['5.0 MQTT-3.10.4-1', '5.0 MQTT-3.10.4-2', '5.0 MQTT-3.10.4-4', '5.0 MQTT-3.10.4-5',
        '3.1.1 MQTT-3.10.4-1', '3.1.1 MQTT-3.10.4-2', '3.1.1 MQTT-3.10.4-4', '3.1.1 MQTT-3.10.4-5',
        '3.1.1 MQTT-3.10.4-6'],
}, async (t) => {
    const c = await t.connect({ id: t.id('c') });
    for (const filter of ['a', '+/x', 'b']) await c.subscribe([{ filter: t.topic(filter), qos: 1 }]);
    await c.unsubscribe([t.topic('a'), t.topic('y/x'), t.topic('b/')]); /* the others are not those */
    for (const topic of ['a', 'y/x', 'b']) await c.publish(t.topic(topic), topic, { qos: 1 });
    assert.deepEqual((await c.take(2)).map((m) => m.payload), ['y/x', 'b']);
    await c.nothing();
});

scenario('reason codes of UNSUBACK', {
    shows: ['5.0 MQTT-3.10.4-6', '5.0 MQTT-3.11.3-1', '5.0 MQTT-3.11.3-2'],
    without: { mosquitto: 'does not tell them' },
}, async (t) => {
    const c = await t.connect({ id: t.id('c') });
    for (const filter of ['a', 'c']) await c.subscribe([{ filter: t.topic(filter), qos: 1 }]);
    assert.deepEqual(await c.unsubscribe(['a', 'b', 'c'].map((x) => t.topic(x))), [0, 0x11, 0]);
});

scenario('wildcards match no $ topics', {
    shows: ['5.0 MQTT-4.7.2-1', '3.1.1 MQTT-4.7.2-1'],
}, async (t) => {
    const named = await t.connect({ id: t.id('n') }), c = await t.connect({ id: t.id('c') });
    await named.subscribe([{ filter: '$SYS/broker/version' }]);
    assert.equal((await named.next()).topic, '$SYS/broker/version'); /* there is one */
    await c.subscribe([{ filter: '+/broker/version' }]);
    await c.sync();
    assert.deepEqual(c.messages.filter((m) => m.topic.startsWith('$')), []);
    await c.publish(`${t.id('x')}/broker/version`, 'plain', { qos: 1 });
    let got;
    do got = await c.next(); /* others are busy with the same */
    while (got.payload !== 'plain' || got.topic !== `${t.id('x')}/broker/version`);
});

scenario('a shared subscription', {
    shows: ['5.0 MQTT-4.8.2-3'],
}, async (t) => {
    const filter = `$share/${t.id('group')}/${t.topic('+')}`;
    const p = await t.connect({ id: t.id('p') });
    const members = [];
    for (const qos of [0, 1, 2]) {
        const c = await t.connect({ id: t.id(`m${qos}`) });
        assert.deepEqual(await c.subscribe([{ filter, qos }]), [qos]);
        members.push(c);
    }
    for (let i = 0; i < 30; i++) await p.publish(t.topic(`${i % 3}`), `${i}`, { qos: 2 });
    const all = [];
    for (const [qos, c] of members.entries()) {
        const got = await c.take(10); /* they take turns */
        for (const m of got) assert.equal(m.qos, qos);
        all.push(...got.map((m) => Number(m.payload)));
        await c.nothing();
    }
    assert.deepEqual(all.sort((a, b) => a - b), Array.from({ length: 30 }, (_, i) => i));
});

scenario('a member of a shared subscription that goes leaves its messages to another', {
    shows: ['5.0 MQTT-4.5.0-1', '3.1.1 MQTT-4.5.0-1'],
}, async (t) => {
    const topic = t.topic('a'), filter = `$share/${t.id('group')}/${topic}`;
    const frozen = await t.connect({ id: t.id('f') }), other = await t.connect({ id: t.id('o') });
    const p = await t.connect({ id: t.id('p') });
    await frozen.subscribe([{ filter, qos: 1 }]);
    await frozen.freeze();
    await p.publish(topic, 'one', { qos: 1 });
    await p.publish(topic, 'two', { qos: 1 });
    await p.sync(); /* it has been sent to the one that does not acknowledge it */
    await other.subscribe([{ filter, qos: 1 }]);
    await frozen.drop();
    assert.deepEqual((await other.take(2)).map((m) => m.payload), ['one', 'two']);
    await other.nothing();
});

scenario('a shared QoS 2 delivery stays with its member', {
    shows: ['5.0 MQTT-4.8.2-4', '5.0 MQTT-4.8.2-5'],
}, async (t) => {
    const topic = t.topic('a'), filter = `$share/${t.id('group')}/${topic}`, id = t.id('f');
    const p = await t.connect({ id: t.id('p') });
    const frozen = await t.connect({ id, ...t.kept }), other = await t.connect({ id: t.id('o') });
    await frozen.subscribe([{ filter, qos: 2 }]);
    await frozen.freeze();
    await p.publish(topic, 'begun', { qos: 2 });
    await p.sync();
    await other.subscribe([{ filter, qos: 2 }]);
    await frozen.drop();
    const back = await t.connect({ id, ...t.kept });
    assert.equal((await back.next()).payload, 'begun');
    await back.disconnect({ session: 0 });
    /* the same with a session that ends: nobody gets it */
    const second = await t.connect({ id: t.id('g'), will: { topic: t.topic('end'), payload: 'ended', qos: 1 } });
    await other.unsubscribe([filter]);
    await other.subscribe([{ filter: t.topic('end'), qos: 1 }]);
    await second.subscribe([{ filter, qos: 2 }]);
    await second.freeze();
    await p.publish(topic, 'begun, too', { qos: 2 });
    await p.sync();
    await other.subscribe([{ filter, qos: 2 }]);
    await second.drop();
    assert.equal((await other.next()).payload, 'ended');
    await other.nothing();
});
