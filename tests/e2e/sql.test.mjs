// SQL over MQTT: forms, parts, errors, limits, who may read an answer, cancelling.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { test, cleanup, until } from './lib/harness.mjs';
import { run, sanitized, startChronos } from './lib/chronos.mjs';

/** Sends a request; collects the messages of the answer until `last`. */
async function ask(node, client, text, { format, properties = {}, token = 'r' } = {}) {
    const topic = `answers/${token}`;
    const parts = [];
    const listen = (t, payload, packet) => {
        if (t === topic) parts.push({ text: payload.toString(), properties: packet.properties ?? {} });
    };
    client.on('message', listen);
    await client.subscribeAsync(topic, { qos: 1 });
    await client.publishAsync('$chronos/sql', text, {
        qos: 1,
        properties: {
            responseTopic: topic, correlationData: Buffer.from(token),
            ...(format ? { userProperties: { format } } : {}), ...properties,
        },
    });
    await until(`the answer to ${text.slice(0, 80)}`, () => {
        const last = parts.at(-1)?.properties.userProperties;
        return parts.length && (last?.last === undefined || last.last !== 'false');
    });
    client.off('message', listen);
    return parts;
}

/** A table `big` of n rows: i, f = i / 2, s. */
async function fill(node, n) {
    assert.equal((await node.sql('CREATE TABLE big (i INT, f FLOAT, s STRING)')).error, undefined);
    for (let from = 0; from < n; from += 5000) {
        const values = [];
        for (let i = from; i < Math.min(n, from + 5000); i++) values.push(`(${i},${i / 2},'row ${i}')`);
        const answer = await node.sql(`INSERT INTO big VALUES ${values.join(',')}`);
        assert.equal(answer.error, undefined, JSON.stringify(answer.error));
        assert.equal(answer.row_count, values.length);
    }
}

test('the forms of an answer, by FORMAT and by user property', async () => {
    const node = await startChronos();
    const client = await node.client();
    const created = await node.sql('CREATE TABLE t (i INT, f FLOAT, s STRING, b BOOLEAN, ts TIMESTAMP, x BLOB)');
    assert.equal(created.command, 'CREATE TABLE');
    const inserted = await node.sql(`INSERT INTO t VALUES
        (9223372036854775807, 0.1, 'a, "b"', true, '2024-12-10T19:13:20.500Z', '\\x00ff'),
        (NULL, 1e300, '', false, NULL, NULL)`);
    assert.equal(inserted.command, 'INSERT');
    assert.equal(inserted.row_count, 2);
    const [json] = await ask(node, client, 'SELECT * FROM t');
    assert.equal(json.properties.correlationData.toString(), 'r');
    // Exact: 2^63-1 does not survive JSON.parse, so look at the text.
    assert.match(json.text, /\[9223372036854775807,0\.1,"a, \\"b\\"",true,"2024-12-10T19:13:20\.5Z","\\\\x00ff"\]/);
    assert.deepEqual(JSON.parse(json.text).columns, [
        { name: 'i', type: 'INT' }, { name: 'f', type: 'FLOAT' }, { name: 's', type: 'STRING' },
        { name: 'b', type: 'BOOLEAN' }, { name: 'ts', type: 'TIMESTAMP' }, { name: 'x', type: 'BLOB' }]);
    assert.equal(JSON.parse(json.text).row_count, 2);
    const [csv] = await ask(node, client, 'SELECT i, f, s, b, ts FROM t', { format: 'csv' });
    assert.deepEqual(csv.text.split(/\r?\n/), ['i,f,s,b,ts',
        '9223372036854775807,0.1,"a, ""b""",true,2024-12-10T19:13:20.5Z', ',1e+300,"",false,', '']
        .map((line) => line.replace('1e+300', /1e\+?300/.exec(csv.text)[0])));
    const [nd] = await ask(node, client, 'SELECT i, s FROM t FORMAT ndjson');
    assert.deepEqual(nd.text.trim().split('\n').length, 2);
    const [table] = await ask(node, client, 'SELECT 1 AS n, 2.5 AS x FORMAT table');
    assert.match(table.text, /\+-+\+-+\+\n\| *n *\| *x *\|\n\+-+\+-+\+\n\| *1 *\| *2\.5 *\|\n\+-+\+-+\+/);
});

test('errors have SQLSTATE, message and position', async () => {
    const node = await startChronos();
    const error = async (text) => (await node.sql(text)).error;
    const missing = await error('SELECT * FROM nowhere');
    assert.equal(missing.code, '42P01');
    assert.equal(missing.position, 15);
    assert.match(missing.message, /nowhere/);
    assert.equal((await error('SELEC 1')).code, '42601');
    assert.equal((await error('SELECT missing FROM readings')).code, '42703');
    assert.equal((await error('SELECT 1/0')).code, '22012');
    assert.equal((await error('SELECT 9223372036854775807 + 1')).code, '22003');
    assert.equal((await error('CREATE TABLE readings (x INT)')).code, '42P07');
    assert.equal((await error(`SELECT 'é', nope`)).position, 13, 'characters, not bytes');
    assert.equal((await error(`DELETE FROM chronos_rejects`)).code.slice(0, 2), '42', 'a system table');
    assert.deepEqual(await node.rows('SELECT 1'), [[1]], 'and goes on');
});

test('a large answer comes in numbered parts that add up', async () => {
    const node = await startChronos(['--query-part-bytes', '64KiB']);
    await fill(node, 20000);
    const client = await node.client();
    const parts = await ask(node, client, 'SELECT i, s FROM big ORDER BY i');
    assert.ok(parts.length > 3, `${parts.length} parts`);
    parts.forEach((p, i) => {
        assert.equal(p.properties.userProperties.part, String(i + 1));
        assert.equal(p.properties.userProperties.last, String(i + 1 === parts.length));
        assert.ok(p.text.length <= 65536);
    });
    const rows = parts.flatMap((p) => JSON.parse(p.text).rows);
    assert.equal(rows.length, 20000);
    rows.forEach((r, i) => assert.equal(r[0], i));
    assert.equal(JSON.parse(parts.at(-1).text).row_count, 20000);
    const csv = await ask(node, client, 'SELECT i FROM big ORDER BY i FORMAT csv', { token: 'csv' });
    assert.deepEqual(csv.map((p) => p.text).join('').trim().split(/\r?\n/),
        ['i', ...Array.from({ length: 20000 }, (_, i) => String(i))]);
    // 3.1.1 has no properties: the numbers are in the JSON.
    const old = await node.client({ protocolVersion: 4 });
    const heard = [];
    old.on('message', (t, p) => heard.push(JSON.parse(p.toString())));
    await old.subscribeAsync('$chronos/result/old', { qos: 1 });
    await old.publishAsync('$chronos/sql/old', 'SELECT i, s FROM big ORDER BY i', { qos: 1 });
    await until('the last part', () => heard.at(-1)?.last === true);
    assert.deepEqual(heard.map((p) => p.part), heard.map((_, i) => i + 1));
    assert.equal(heard.flatMap((p) => p.rows).length, 20000);
});

test('the client\'s Maximum Packet Size bounds a part', async () => {
    const node = await startChronos();
    await fill(node, 5000);
    const client = await node.client({ properties: { maximumPacketSize: 20000 } });
    const parts = await ask(node, client, 'SELECT s FROM big');
    assert.ok(parts.length > 2);
    assert.equal(parts.flatMap((p) => JSON.parse(p.text).rows).length, 5000);
});

test('the client program puts a large answer together', async () => {
    const node = await startChronos(['--query-part-bytes', '64KiB', '--max-output-bytes', '256KiB']);
    await fill(node, 100000);
    const cli = await node.cli(['--format', 'csv', '-e', 'SELECT i, f, s FROM big ORDER BY i']);
    assert.equal(cli.code, 0, cli.stderr);
    const lines = cli.stdout.trim().split(/\r?\n/);
    assert.equal(lines.length, 100001);
    assert.equal(lines[0], 'i,f,s');
    lines.slice(1).forEach((line, i) => {
        const [a, f, text] = line.split(',');
        assert.deepEqual([Number(a), Number(f), text], [i, i / 2, `row ${i}`]);
    });
    const json = await node.cli(['--format', 'json', '-e', 'SELECT i FROM big ORDER BY i']);
    const answer = JSON.parse(json.stdout);
    assert.equal(answer.rows.length, 100000);
    assert.equal(answer.row_count, 100000);
});

for (const output of ['256KiB', '32MiB'])
test(`an answer that nobody reads does not make the node grow (max_output_bytes ${output})`, async () => {
    const node = await startChronos(['--query-part-bytes', '64KiB', '--max-output-bytes', output]);
    await fill(node, 300000);
    const anonymous = () => Number(/RssAnon:\s+(\d+)/.exec(readFileSync(`/proc/${node.pid}/status`, 'utf8'))[1]);
    const before = anonymous();
    // A subscriber that is stopped does not read; the answer is some 30 MB.
    const reader = spawn('stdbuf', ['-oL', 'mosquitto_sub', '-h', '127.0.0.1', '-p', String(node.port), '-V', '5', '-d',
        '-t', 'answers/slow'], { stdio: ['ignore', 'pipe', 'ignore'] });
    cleanup(() => reader.kill('SIGKILL'));
    let out = '';
    reader.stdout.on('data', (t) => (out += t));
    await until('SUBACK', () => out.includes('Subscribed (mid'));
    reader.kill('SIGSTOP');
    const client = await node.client();
    client.publish('$chronos/sql', 'SELECT i, s, s, s, s, s, s, s, s FROM big',
        { qos: 0, properties: { responseTopic: 'answers/slow' } });
    await until('the query to wait for its reader', async () => (await node.metrics()).chronos_queries_blocked >= 1);
    assert.ok(sanitized || anonymous() - before < 24 * 1024, `${anonymous() - before} KiB more`);
    assert.deepEqual(await node.rows('SELECT 1'), [[1]], 'others are answered');
    assert.doesNotMatch(node.stderr, /stalled/);
    reader.kill('SIGKILL');
    await until('the query to end', async () => {
        const m = await node.metrics();
        return m.chronos_queries_blocked === 0 && m.chronos_queries_running === 0;
    });
});

test('R1: answers go only where the asker may publish, and only the asker reads them', async () => {
    const node = await startChronos();
    const client = await node.client();
    const refused = async (responseTopic) =>
        (await node.publish(client, '$chronos/sql', 'SELECT 1', { properties: { responseTopic } })).code;
    assert.ok((await refused('$SYS/x')) >= 0x80, '$SYS');
    assert.ok((await refused('sensors/a/t')) >= 0x80, 'a mapped topic');
    assert.deepEqual(await node.rows('SELECT count(*) FROM readings'), [[0]]);
    // No wildcards over results.
    const other = await node.client();
    for (const filter of ['$chronos/result/+', '$chronos/result/#', '$chronos/#'])
        await assert.rejects(other.subscribeAsync(filter, { qos: 1 }), filter);
    // Never retained.
    await client.subscribeAsync('answers/keep');
    const got = new Promise((resolve) => client.once('message', (t, p, packet) => resolve(packet)));
    await client.publishAsync('$chronos/sql', 'SELECT 1',
        { qos: 1, retain: true, properties: { responseTopic: 'answers/keep' } });
    assert.equal((await got).retain, false);
    const late = [];
    other.on('message', (t) => late.push(t));
    await other.subscribeAsync('answers/#', { qos: 1 });
    await other.publishAsync('answers/done', '', { qos: 1 });
    await until('the fence', () => late.includes('answers/done'));
    assert.deepEqual(late, ['answers/done']);
});

test('R2: a write is acknowledged after it is committed, and an idempotency key makes it happen once', async () => {
    const node = await startChronos();
    const client = await node.client();
    const insert = async (key) => {
        const [answer] = await ask(node, client, `INSERT INTO readings (device_id, value) VALUES ('k', 1)`,
            { properties: { userProperties: { 'idempotency-key': key, format: 'json' } } });
        return JSON.parse(answer.text);
    };
    const count = async () => (await node.rows('SELECT count(*) FROM readings'))[0][0];
    await client.publishAsync('$chronos/sql/none', `INSERT INTO readings (device_id, value) VALUES ('k', 0)`, { qos: 1 });
    assert.equal(await count(), 1, 'there when it was acknowledged');
    assert.equal((await insert('one')).row_count, 1);
    assert.equal((await insert('one')).error, undefined);
    assert.equal(await count(), 2);
    assert.equal((await insert('two')).row_count, 1);
    // Properties of another name are no key.
    for (let i = 0; i < 2; i++)
        await ask(node, client, `INSERT INTO readings (device_id, value) VALUES ('k', 3)`, { format: 'json' });
    assert.equal(await count(), 5);
    await node.restart();
    client.end(true);
    const again = await node.client();
    await ask(node, again, `INSERT INTO readings (device_id, value) VALUES ('k', 1)`,
        { properties: { userProperties: { 'idempotency-key': 'one' } } });
    assert.equal(await count(), 5, 'known after a crash');
});

const SLOW = 'SELECT count(*), sum(sqrt(abs(sin(i)) + ln(i + 1)) * cos(f)), max(length(upper(s || s))) FROM big GROUP BY s ORDER BY 2';

test('a time limit ends a query: of the node, and of the session', async () => {
    const node = await startChronos();
    await fill(node, 300000);
    assert.equal((await node.sql('SET statement_timeout = 50')).error, undefined);
    assert.equal((await node.sql(SLOW)).error?.code, '57014');
    assert.deepEqual(await node.rows('SELECT 1'), [[1]]);
    node.args.push('--query-timeout', '50ms');
    await node.restart();
    assert.equal((await node.sql(SLOW)).error?.code, '57014');
    assert.deepEqual(await node.rows('SELECT 1'), [[1]]);
});

test('memory of a query is bounded', async () => {
    const node = await startChronos(['--query-memory', '1MiB']);
    await fill(node, 100000);
    const { error } = await node.sql('SELECT s, count(*) FROM big GROUP BY s ORDER BY 1');
    assert.equal(error?.code, '53200');
    assert.deepEqual(await node.rows('SELECT count(*) FROM big'), [[100000]]);
});

test('chronos client: several statements, errors on stderr, exit status', async () => {
    const node = await startChronos();
    const script = `CREATE TABLE s (x INT); INSERT INTO s VALUES (1), (2);
        SELECT nope FROM s;
        SELECT sum(x) AS total FROM s; -- a comment; with a semicolon`;
    const went = await node.cli(['--format', 'csv'], { input: script });
    assert.equal(went.code, 1);
    assert.match(went.stderr, /^ERROR 42703: .*nope/m);
    assert.match(went.stdout, /total\r?\n3/);
    const stopped = await node.cli(['--format', 'csv', '--stop-on-error', '-e', 'SELECT nope', '-e', 'SELECT 7 AS seven']);
    assert.equal(stopped.code, 1);
    assert.doesNotMatch(stopped.stdout, /seven/);
    const nowhere = await run(process.env.CHRONOS, ['client', '-p', '1', '-e', 'SELECT 1']);
    assert.equal(nowhere.code, 2);
    assert.match(nowhere.stderr, /^chronos: /);
});
