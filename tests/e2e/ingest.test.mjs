// Readings into tables through the real binary: mappings, running connections, rejects.
import assert from 'node:assert/strict';
import { test, until } from './lib/harness.mjs';
import { startChronos } from './lib/chronos.mjs';

/** Messages of a topic filter, as they come. */
async function listen(node, filter) {
    const client = await node.client();
    const messages = [];
    client.on('message', (topic, payload, packet) => messages.push({ topic, payload: payload.toString(), packet }));
    await client.subscribeAsync(filter, { qos: 1 });
    return messages;
}

async function make(node, sql) {
    const answer = await node.sql(sql);
    assert.equal(answer.error, undefined, `${sql}: ${JSON.stringify(answer.error)}`);
    return answer;
}

test('readings out of the box: a bare number, and an object of metrics', async () => {
    const node = await startChronos();
    const client = await node.client();
    await client.publishAsync('sensors/a/temp', '21.5', { qos: 1 });
    await client.publishAsync('sensors/b',
        '{"device_id":"b","ts":"2024-12-10T19:13:20.500Z","seq":7,"metrics":{"temp":30.5,"humidity":40.2}}', { qos: 1 });
    const rows = await node.rows(
        'SELECT device_id, metric, value, seq FROM readings ORDER BY device_id, metric');
    assert.deepEqual(rows, [['a', 'temp', 21.5, null], ['b', 'humidity', 40.2, 7], ['b', 'temp', 30.5, 7]]);
    assert.deepEqual(await node.rows(`SELECT ts FROM readings WHERE metric = 'humidity'`), [['2024-12-10T19:13:20.5Z']]);
});

test('QoS 0, 1 and 2 all become rows', async () => {
    const node = await startChronos();
    const client = await node.client();
    for (const qos of [0, 1, 2]) await client.publishAsync('sensors/q/t', String(qos), { qos });
    await until('the rows', async () => (await node.rows('SELECT count(*) FROM readings'))[0][0] === 3);
    assert.deepEqual(await node.rows('SELECT value FROM readings ORDER BY value'), [[0], [1], [2]]);
});

test('a table takes effect on connections that are there (R9), and lets go when dropped', async () => {
    const node = await startChronos();
    const client = await node.client();
    const heard = await listen(node, 'farm/#');
    await client.publishAsync('farm/north/d1/env', '{"temp":1}', { qos: 1 });
    await make(node, `CREATE TABLE env (site STRING, device_id STRING, ts TIMESTAMP, temp FLOAT, humidity FLOAT)
        WITH TTL=7d, TOPIC='farm/{site}/{device_id}/env'`);
    // The same connection, whose loop knew the topic as a plain one.
    await client.publishAsync('farm/north/d1/env', '{"temp":21.5,"humidity":40}', { qos: 1 });
    assert.deepEqual(await node.rows('SELECT site, device_id, temp, humidity FROM env'), [['north', 'd1', 21.5, 40]]);
    await make(node, 'DROP TABLE env');
    const { code } = await node.publish(client, 'farm/north/d1/env', 'not json at all');
    assert.equal(code < 0x80, true, 'a plain message again');
    await make(node, `CREATE TABLE env (site STRING, note STRING) WITH TOPIC='farm/{site}/+/env', FORMAT=text`);
    await client.publishAsync('farm/north/d1/env', 'hello', { qos: 1 });
    assert.deepEqual(await node.rows('SELECT site, note FROM env'), [['north', 'hello']]);
    await until('deliveries', () => heard.length === 4);
    assert.deepEqual(heard.map((m) => m.payload),
        ['{"temp":1}', '{"temp":21.5,"humidity":40}', 'not json at all', 'hello']);
});

test('DDL under load: every acknowledged reading is in a table that had the topic', async () => {
    const node = await startChronos();
    const client = await node.client();
    let acked = 0, stop = false;
    const load = (async () => {
        while (!stop) {
            await Promise.all(Array.from({ length: 50 }, (_, i) =>
                client.publishAsync('sensors/ddl/n', String(acked + i), { qos: 1 })));
            acked += 50;
        }
    })();
    // Each of these moves the mapping version, so batches in flight go stale and are decoded again.
    for (let i = 0; i < 20; i++) {
        await make(node, `CREATE TABLE t${i} (v FLOAT) WITH TOPIC='other/${i}'`);
        if (i % 2) await make(node, `DROP TABLE t${i}`);
    }
    stop = true;
    await load;
    const [[count, distinct, max]] = await node.rows('SELECT count(*), count(DISTINCT value), max(value) FROM readings');
    assert.equal(count, acked);
    assert.equal(distinct, acked);
    assert.equal(max, acked - 1);
});

test('several tables on one topic: all or nothing (R3)', async () => {
    const node = await startChronos();
    const client = await node.client();
    await make(node, `CREATE TABLE a (device STRING, temp FLOAT) WITH TOPIC='multi/{device}'`);
    await make(node, `CREATE TABLE b (device STRING, temp FLOAT NOT NULL, hum INT) WITH TOPIC='multi/#'`);
    await client.publishAsync('multi/x', '{"temp":1.5,"hum":2}', { qos: 1 });
    assert.deepEqual(await node.rows('SELECT device, temp FROM a'), [['x', 1.5]]);
    assert.deepEqual(await node.rows('SELECT temp, hum FROM b'), [[1.5, 2]]);
    // Fits a, but not b (NOT NULL): neither.
    const refused = await node.publish(client, 'multi/x', '{"hum":3}');
    assert.equal(refused.code, 0x99, refused.reason);
    // One bad element spoils the array.
    const array = await node.publish(client, 'multi/x', '[{"temp":2},{"temp":"warm"},{"temp":3}]');
    assert.equal(array.code, 0x99, array.reason);
    const good = await node.publish(client, 'multi/x', '[{"temp":2},{"temp":3}]');
    assert.equal(good.code, 0, good.reason);
    assert.deepEqual(await node.rows('SELECT temp FROM a ORDER BY temp'), [[1.5], [2], [3]]);
    assert.deepEqual(await node.rows('SELECT count(*) FROM b'), [[3]]);
});

test('formats: csv, number, text, nested keys, unknown keys', async () => {
    const node = await startChronos();
    const client = await node.client();
    await make(node, `CREATE TABLE c (d STRING, ts TIMESTAMP, x INT, note STRING) WITH TOPIC='csv/{d}', FORMAT=csv`);
    await client.publishAsync('csv/one', '2024-01-02T03:04:05Z,7,"a, ""b"""', { qos: 1 });
    assert.deepEqual(await node.rows('SELECT d, ts, x, note FROM c'), [['one', '2024-01-02T03:04:05Z', 7, 'a, "b"']]);
    await make(node, `CREATE TABLE n (d STRING, value FLOAT) WITH TOPIC='num/{d}', FORMAT=number`);
    await client.publishAsync('num/one', '-1.25e3', { qos: 1 });
    assert.deepEqual(await node.rows('SELECT d, value FROM n'), [['one', -1250]]);
    await make(node, `CREATE TABLE j (d STRING, "gps.lat" FLOAT, "gps.lon" FLOAT, on_grid BOOLEAN) WITH TOPIC='json/{d}'`);
    await client.publishAsync('json/one', '{"gps":{"lat":48.2,"lon":16.4,"alt":170},"on_grid":true,"who":"?"}', { qos: 1 });
    assert.deepEqual(await node.rows('SELECT d, "gps.lat", "gps.lon", on_grid FROM j'), [['one', 48.2, 16.4, true]]);
    // Seconds, milliseconds, microseconds and nanoseconds are told by magnitude.
    await make(node, `CREATE TABLE times (k STRING, ts TIMESTAMP) WITH TOPIC='time/{k}'`);
    for (const [k, v] of [['s', '1700000000'], ['ms', '1700000000000'], ['us', '1700000000000000'],
        ['ns', '1700000000000000000'], ['iso', '"2023-11-14T23:13:20+01:00"']])
        await client.publishAsync(`time/${k}`, `{"ts":${v}}`, { qos: 1 });
    assert.deepEqual(await node.rows('SELECT DISTINCT ts FROM times'), [['2023-11-14T22:13:20Z']]);
    assert.deepEqual(await node.rows('SELECT count(*) FROM times'), [[5]]);
});

test('a primary key: the same reading again is no second row, what it names is merged', async () => {
    const node = await startChronos();
    const client = await node.client();
    await make(node, `CREATE TABLE k (d STRING, ts TIMESTAMP, temp FLOAT, hum FLOAT, PRIMARY KEY (d, ts))
        WITH TOPIC='key/{d}'`);
    await client.publishAsync('key/a', '{"ts":"2024-01-01T00:00:00Z","temp":1}', { qos: 1 });
    await client.publishAsync('key/a', '{"ts":"2024-01-01T00:00:00Z","temp":1}', { qos: 1 });
    await client.publishAsync('key/a', '{"ts":"2024-01-01T00:00:00Z","hum":40}', { qos: 1 });
    await client.publishAsync('key/a', '{"ts":"2024-01-01T00:05:00Z","temp":2}', { qos: 1 });
    const want = [['2024-01-01T00:00:00Z', 1, 40], ['2024-01-01T00:05:00Z', 2, null]];
    assert.deepEqual(await node.rows('SELECT ts, temp, hum FROM k ORDER BY ts'), want);
    assert.equal((await node.sql(`INSERT INTO k (d, ts) VALUES ('a', '2024-01-01T00:00:00Z')`)).error.code, '23505');
    await node.restart();
    assert.deepEqual(await node.rows('SELECT ts, temp, hum FROM k ORDER BY ts'), want);
});

test('rejects: 0x99 with a reason after they are kept, published, retried', async () => {
    const node = await startChronos();
    const five = await node.client();
    const four = await node.client({ protocolVersion: 4 });
    const plain = await listen(node, 'env/#');
    await make(node, `CREATE TABLE env (d STRING, temp FLOAT) WITH TOPIC='env/{d}'`);
    const heard = await listen(node, '$chronos/reject/env');
    const { code, reason } = await node.publish(five, 'env/a', '{"temp":"warm"}', { retain: true });
    assert.equal(code, 0x99);
    assert.match(reason, /temp/);
    const kept = async () => node.rows(`SELECT reject_table, topic, CAST(payload AS STRING), reason FROM chronos_rejects`);
    assert.equal((await kept()).length, 1, 'kept before it was answered');
    assert.equal((await kept())[0][0], 'env');
    assert.equal((await kept())[0][1], 'env/a');
    assert.match((await kept())[0][3], /temp/);
    // 3.1.1 knows only PUBACK.
    await four.publishAsync('env/b', '{"temp":"hot"}', { qos: 1 });
    await until('both on $chronos/reject/env', () => heard.length === 2);
    assert.equal((await node.rows('SELECT count(*) FROM env'))[0][0], 0);
    // Neither delivered nor retained.
    const late = await listen(node, 'env/+');
    await five.publishAsync('env/c', '{"temp":1}', { qos: 1 });
    await until('the good one', () => plain.length && late.length);
    assert.deepEqual([...plain, ...late].map((m) => m.topic), ['env/c', 'env/c']);
    // They survive a crash, and fit once the table does.
    await node.restart();
    assert.equal((await kept()).length, 2);
    await make(node, 'DROP TABLE env');
    await make(node, `CREATE TABLE env (d STRING, temp STRING) WITH TOPIC='env/{d}'`);
    await make(node, 'RETRY REJECTS FOR env');
    assert.deepEqual(await node.rows('SELECT d, temp FROM env ORDER BY d'), [['a', 'warm'], ['b', 'hot']]);
    assert.deepEqual(await kept(), []);
});

test('a subscriber of a mapped topic sees what was published, after commit, once', async () => {
    const node = await startChronos();
    const heard = await listen(node, 'sensors/#');
    const shared1 = await listen(node, '$share/g/sensors/#');
    const shared2 = await listen(node, '$share/g/sensors/#');
    const client = await node.client();
    await Promise.all(Array.from({ length: 1000 }, (_, i) => client.publishAsync('sensors/s/n', String(i), { qos: 1 })));
    await until('1,000 deliveries', () => heard.length >= 1000);
    assert.deepEqual(heard.map((m) => Number(m.payload)), Array.from({ length: 1000 }, (_, i) => i));
    await until('1,000 shared', () => shared1.length + shared2.length >= 1000);
    assert.equal(new Set([...shared1, ...shared2].map((m) => m.payload)).size, 1000);
});
