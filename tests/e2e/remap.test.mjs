// R9 under load: tables come and go while readings are published. Batches that were decoded under
// mappings of a moment ago come back stale and are decoded again; nothing may be lost, doubled or
// overtaken by that, in the table or at a subscriber. And sessions taken over from loop to loop.
import assert from 'node:assert/strict';
import { test, until } from './lib/harness.mjs';
import { startChronos } from './lib/chronos.mjs';

const MESSAGES = process.env.LONG ? 20000 : 8000;
const PUBLISHERS = 4;

for (const qos of [0, 1, 2])
test(`QoS ${qos} while tables come and go`, async () => {
    const node = await startChronos(['--loops', '2']);
    const done = await node.sql(`CREATE TABLE kept (p INT, n INT) WITH TOPIC='load/{p}/in'`);
    assert.equal(done.error, undefined);
    const listener = await node.client({ clientId: 'listener' });
    const heard = Array.from({ length: PUBLISHERS }, () => []);
    listener.on('message', (topic, payload) => heard[Number(topic.split('/')[1])].push(Number(payload)));
    await listener.subscribeAsync('load/+/in', { qos: 1 });
    let publishing = PUBLISHERS;
    const publish = async (p) => {
        const client = await node.client({
            clientId: `publisher-${p}`, clean: false, properties: { sessionExpiryInterval: 100 } });
        const window = new Set();
        for (let n = 0; n < MESSAGES; n++) {
            const sent = client.publishAsync(`load/${p}/in`, String(n), { qos });
            window.add(sent);
            sent.then(() => window.delete(sent));
            if (window.size >= 200) await Promise.race(window);
        }
        await Promise.all(window);
        publishing--;
    };
    const change = async () => {
        let changes = 0;
        while (publishing) {
            const made = await node.sql(`CREATE TABLE t${changes} (n INT) WITH TOPIC='load/+/other${changes}'`);
            assert.equal(made.error, undefined);
            assert.equal((await node.sql(`DROP TABLE t${changes}`)).error, undefined);
            changes++;
        }
        return changes;
    };
    const all = Array.from({ length: PUBLISHERS }, (_, p) => publish(p));
    const changes = await change();
    await Promise.all(all);
    const expected = Array.from({ length: PUBLISHERS }, (_, p) => [p, MESSAGES, MESSAGES * (MESSAGES - 1) / 2]);
    const rows = () => node.rows('SELECT p, count(*), sum(n) FROM kept GROUP BY p ORDER BY p');
    await until('the rows', async () => (await rows()).every((r) => r[1] >= MESSAGES));
    assert.deepEqual(await rows(), expected);
    await until('deliveries', () => heard.every((h) => h.length >= MESSAGES));
    for (const h of heard) assert.deepEqual(h, Array.from({ length: MESSAGES }, (_, n) => n), 'in order, once');
    const stale = (await node.metrics()).chronos_entries_stale_total;
    console.error(`${changes} changes of the catalog, ${stale} entries decoded again`);
}, { timeoutMs: 300000 });

test('a session taken over again and again, from loop to loop', async () => {
    const node = await startChronos(['--loops', '3', '--log-level', 'warning']);
    const feeder = await node.client();
    const options = { clientId: 'wanderer', clean: false, reconnectPeriod: 0, protocolVersion: 5,
        properties: { sessionExpiryInterval: 100 },
        onMessage: (topic, payload) => heard.add(Number(payload)) };
    const heard = new Set();
    let client = await node.client(options);
    await client.subscribeAsync('feed', { qos: 1 });
    for (let n = 0; n < 50; n++) {
        // Several at a time: all but one are refused or taken over, one is left.
        await Promise.allSettled([1, 2, 3].map(() => node.client(options)));
        await feeder.publishAsync('feed', String(n), { qos: 1 });
    }
    client = await node.client(options);
    await until('every message', () => heard.size === 50);
    assert.deepEqual(await node.rows('SELECT 1'), [[1]]);
}, { timeoutMs: 120000 });
