// What an operator asks a running node: who is connected, what is subscribed, which sessions wait;
// and how a client is shown the door.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { test, cleanup, until } from './lib/harness.mjs';
import { BIN, Chronos, run, startChronos, tempDir } from './lib/chronos.mjs';

/** Rows as objects. */
async function objects(node, sql) {
    const answer = await node.sql(sql);
    if (answer.error) throw new Error(`${answer.error.code}: ${answer.error.message} in: ${sql}`);
    return answer.rows.map((row) => Object.fromEntries(row.map((v, i) => [answer.columns[i].name, v])));
}
const one = async (node, sql) => {
    const rows = await objects(node, sql);
    assert.equal(rows.length, 1, `${sql}: ${JSON.stringify(rows)}`);
    return rows[0];
};
const error = async (node, sql) => (await node.sql(sql)).error;

test('chronos_clients: who is connected, and how', async () => {
    const node = await startChronos(['--loops', '2']);
    const before = Date.now();
    const client = await node.client({
        clientId: 'probe-5', keepalive: 33, clean: false, properties: { sessionExpiryInterval: 100 },
    });
    await node.client({ clientId: 'probe-3', protocolVersion: 4, keepalive: 0 });
    await client.subscribeAsync(['plain/#', 'other'], { qos: 1 });
    const got = [];
    client.on('message', (topic) => got.push(topic));
    for (let i = 0; i < 3; i++) await client.publishAsync('plain/x', `message ${i}`, { qos: 1 });
    await client.publishAsync('nobody/listens', 'x', { qos: 2 });
    await until('the messages', () => got.length === 3);
    const five = await one(node, "SELECT * FROM chronos_clients WHERE client_id = 'probe-5'");
    assert.match(five.address, /^127\.0\.0\.1:\d+$/);
    assert.equal(five.listener, `127.0.0.1:${node.port}`);
    assert.equal(five.transport, 'tcp');
    assert.equal(five.protocol, '5');
    assert.equal(five.keep_alive, 33);
    assert.equal(five.clean_start, false);
    assert.equal(five.session_expiry, 100);
    assert.equal(five.subscriptions, 2);
    assert.equal(five.dropped, 0);
    assert.equal(five.messages_received, 4);
    assert.equal(five.messages_sent, 3);
    assert.ok(five.bytes_received > 60 && five.bytes_sent > 60, JSON.stringify(five));
    const since = Date.parse(five.connected_at);
    assert.ok(since >= before - 1000 && since <= Date.now() + 1000, five.connected_at);
    const three = await one(node, "SELECT protocol, keep_alive, clean_start, session_expiry, username FROM chronos_clients WHERE client_id = 'probe-3'");
    assert.deepEqual(three, { protocol: '3.1.1', keep_alive: 0, clean_start: true, session_expiry: 0, username: null });
    // Like any table; the one who asks is a client, too.
    assert.deepEqual(await node.rows("SELECT protocol, count(*) FROM chronos_clients GROUP BY protocol ORDER BY 2 DESC, 1"), [['5', 2], ['3.1.1', 1]]);
    const shown = await objects(node, 'SHOW CLIENTS');
    assert.deepEqual(shown.map((r) => r.client_id), shown.map((r) => r.client_id).sort());
    assert.equal(shown.length, 3);
    await client.endAsync();
    await until('probe-5 to be gone', async () =>
        (await node.rows("SELECT 1 FROM chronos_clients WHERE client_id = 'probe-5'")).length === 0);
    // On every surface.
    const cli = await node.cli(['-e', "SELECT client_id FROM chronos_clients WHERE client_id LIKE 'probe%'", '--format', 'csv']);
    assert.equal(cli.stdout.replaceAll('\r', ''), 'client_id\nprobe-3\n');
    const http = await node.http('/query', { method: 'POST', body: "SELECT count(*) AS n FROM chronos_clients WHERE client_id = 'probe-3'" });
    assert.deepEqual(JSON.parse(http.text).rows, [[1]]);
});

test('chronos_subscriptions: each filter of each session with its options', async () => {
    const node = await startChronos(['--loops', '2']);
    const client = await node.client({ clientId: 'sub' });
    const away = await node.client({ clientId: 'away', clean: false, protocolVersion: 4 });
    await client.subscribeAsync({ 'a/+/c': { qos: 2, nl: true, rap: true, rh: 2 } }, { properties: { subscriptionIdentifier: 77 } });
    await client.subscribeAsync('$share/workers/jobs/#', { qos: 1 });
    await client.subscribeAsync(['', 'x'].map((p) => `${p}/`), { qos: 0, rh: 1 });
    await away.subscribeAsync('kept', { qos: 1 });
    await away.endAsync();
    const where = "WHERE client_id IN ('sub', 'away')";
    assert.deepEqual(await objects(node, `SELECT * FROM chronos_subscriptions ${where} ORDER BY client_id, filter`), [
        { client_id: 'away', filter: 'kept', share_group: null, qos: 1, no_local: false, retain_as_published: false, retain_handling: 0, subscription_id: null },
        { client_id: 'sub', filter: '/', share_group: null, qos: 0, no_local: false, retain_as_published: false, retain_handling: 1, subscription_id: null },
        { client_id: 'sub', filter: 'a/+/c', share_group: null, qos: 2, no_local: true, retain_as_published: true, retain_handling: 2, subscription_id: 77 },
        { client_id: 'sub', filter: 'jobs/#', share_group: 'workers', qos: 1, no_local: false, retain_as_published: false, retain_handling: 0, subscription_id: null },
        { client_id: 'sub', filter: 'x/', share_group: null, qos: 0, no_local: false, retain_as_published: false, retain_handling: 1, subscription_id: null },
    ]);
    assert.equal((await objects(node, 'SHOW SUBSCRIPTIONS')).length >= 5, true);
    // Subscribed again with other options: one row, with those.
    await client.subscribeAsync('a/+/c', { qos: 0 });
    assert.deepEqual(await node.rows("SELECT qos, no_local, subscription_id FROM chronos_subscriptions WHERE filter = 'a/+/c'"), [[0, false, null]]);
    await client.unsubscribeAsync('a/+/c');
    assert.deepEqual(await node.rows("SELECT 1 FROM chronos_subscriptions WHERE filter = 'a/+/c'"), []);
    await client.endAsync();
    await until('those of a session that ended to be gone', async () =>
        (await node.rows("SELECT 1 FROM chronos_subscriptions WHERE client_id = 'sub'")).length === 0);
    // Many, on one client and in one table.
    const many = await node.client({ clientId: 'many' });
    for (let from = 0; from < 1500; from += 500)
        await many.subscribeAsync(Array.from({ length: 500 }, (_, i) => `many/${from + i}`), { qos: 1 });
    assert.deepEqual(await node.rows("SELECT count(*), count(DISTINCT filter), min(qos) FROM chronos_subscriptions WHERE client_id = 'many'"), [[1500, 1500, 1]]);
});

test('chronos_sessions: connected or waiting, each once', async () => {
    const node = await startChronos(['--loops', '2']);
    const begun = Date.now();
    const properties = { sessionExpiryInterval: 3600 };
    const away = await node.client({ clientId: 'away', clean: false, properties });
    await away.subscribeAsync('wanted/#', { qos: 1 });
    const here = await one(node, "SELECT * FROM chronos_sessions WHERE client_id = 'away'");
    assert.deepEqual(here, {
        client_id: 'away', connected: true, session_expiry: 3600, expires_at: null, durable: true,
        subscriptions: 1, inflight: 0, queued_count: 0, queued_bytes: 0, dropped: 0,
    });
    await away.endAsync();
    const publisher = await node.client({ clientId: 'publisher' });
    for (let i = 0; i < 5; i++) await publisher.publishAsync('wanted/x', 'y'.repeat(100), { qos: 1 });
    await until('five to wait', async () =>
        (await one(node, "SELECT queued_count FROM chronos_sessions WHERE client_id = 'away'")).queued_count === 5);
    const parked = await one(node, "SELECT * FROM chronos_sessions WHERE client_id = 'away'");
    assert.equal(parked.connected, false);
    assert.ok(parked.queued_bytes >= 500, JSON.stringify(parked));
    assert.equal(parked.dropped, 0);
    const expires = Date.parse(parked.expires_at);
    assert.ok(expires > begun + 3590_000 && expires < Date.now() + 3610_000, parked.expires_at);
    assert.deepEqual(await node.rows("SELECT client_id FROM chronos_clients WHERE client_id = 'away'"), []);
    // One that ends with its connection is a session, too, of memory.
    assert.deepEqual(await one(node, "SELECT connected, durable, session_expiry FROM chronos_sessions WHERE client_id = 'publisher'"),
        { connected: true, durable: false, session_expiry: 0 });
    const never = await node.client({ clientId: 'never', clean: false, protocolVersion: 4 });
    await never.endAsync();
    assert.deepEqual(await one(node, "SELECT connected, session_expiry, expires_at FROM chronos_sessions WHERE client_id = 'never'"),
        { connected: false, session_expiry: 4294967295, expires_at: null });
    const shown = (await objects(node, 'SHOW SESSIONS')).map((r) => r.client_id);
    assert.equal(new Set(shown).size, shown.length);
    // Known again after a crash, and taken over by the client that comes back.
    await node.restart();
    node.sqlClient = undefined;
    assert.equal((await one(node, "SELECT connected FROM chronos_sessions WHERE client_id = 'away'")).connected, false);
    await node.client({ clientId: 'away', clean: false, properties });
    assert.equal((await one(node, "SELECT connected FROM chronos_sessions WHERE client_id = 'away'")).connected, true);
});

test('a lot of clients that come and go: each at most once, and none that stays is missed', async () => {
    const node = await startChronos(['--loops', '2']);
    const connectPacket = (id) => {
        const body = Buffer.concat([Buffer.from([0, 4, 77, 81, 84, 84, 4, 2, 0, 0, 0, id.length]), Buffer.from(id)]);
        return Buffer.concat([Buffer.from([0x10, body.length]), body]);
    };
    const raw = (id) => new Promise((resolve, reject) => {
        const socket = connect(node.port, '127.0.0.1', () => socket.write(connectPacket(id)));
        socket.once('data', () => resolve(socket));
        socket.on('error', reject);
    });
    const staying = await Promise.all(Array.from({ length: 600 }, (_, i) => raw(`stay-${i}`)));
    cleanup(() => staying.forEach((s) => s.destroy()));
    let going = true;
    const passing = (async () => {
        for (let i = 0; going; i++)
            for (const s of await Promise.all(Array.from({ length: 20 }, (_, k) => raw(`pass-${k}`)))) s.destroy();
    })();
    for (let i = 0; i < 15; i++) {
        const [[rows, distinct, stay]] = await node.rows("SELECT count(*), count(DISTINCT client_id), count(*) FILTER (WHERE client_id LIKE 'stay-%') FROM chronos_clients");
        assert.equal(rows, distinct);
        assert.equal(stay, 600);
    }
    going = false;
    await passing;
});

test('relations are read only, and SHOW TABLES is for tables', async () => {
    const node = await startChronos();
    for (const sql of ["INSERT INTO chronos_clients (client_id) VALUES ('x')", 'DELETE FROM chronos_sessions',
        "UPDATE chronos_subscriptions SET filter = '#'", 'DROP TABLE chronos_clients', 'TRUNCATE chronos_clients',
        'GRANT SELECT ON chronos_clients TO bob', 'REVOKE SELECT ON chronos_clients FROM bob'])
        assert.equal((await error(node, sql)).code, '42809', sql);
    assert.equal((await error(node, 'CREATE TABLE chronos_clients (a INT)')).code, '42939');
    const tables = await node.rows('SHOW TABLES');
    assert.ok(!tables.some(([name]) => name === 'chronos_clients'));
    assert.match((await error(node, 'SHOW CLIENT')).hint, /"clients"/);
});

test('KILL CLIENT: 0x98 for 5.0, a closed connection for 3.1.1, an error for nobody', async () => {
    const node = await startChronos(['--loops', '2']);
    const watcher = await node.client({ clientId: 'watcher' });
    const wills = [];
    watcher.on('message', (topic, payload) => wills.push(`${topic} ${payload}`));
    await watcher.subscribeAsync('wills/#');
    for (const version of [5, 4]) {
        const id = `victim's "${version}"`;
        const victim = await node.client({
            clientId: id, protocolVersion: version, clean: false,
            will: { topic: `wills/${version}`, payload: 'kicked' },
            ...(version === 5 ? { properties: { sessionExpiryInterval: 60 } } : {}),
        });
        const said = [];
        victim.on('disconnect', (packet) => said.push(packet.reasonCode));
        const closed = new Promise((resolve) => victim.on('close', resolve));
        const answer = await node.sql(`KILL CLIENT '${id.replaceAll("'", "''")}'`);
        assert.equal(answer.command, 'KILL CLIENT', JSON.stringify(answer));
        assert.equal(answer.row_count, 1);
        await closed;
        assert.deepEqual(said, version === 5 ? [0x98] : []);
        await until('its will', () => wills.includes(`wills/${version} kicked`));
        // Its session is kept, so it may come back to it.
        assert.deepEqual(await node.rows(`SELECT connected FROM chronos_sessions WHERE client_id = '${id.replaceAll("'", "''")}'`), [[false]]);
        assert.match(node.stderr, /client kicked/);
        const again = await error(node, `KILL CLIENT '${id.replaceAll("'", "''")}'`);
        assert.equal(again.code, '42704');
        assert.match(again.message, /no client .* is connected/);
    }
    assert.equal((await error(node, "KILL CLIENT ''")).code, '42704');
    assert.equal((await error(node, 'KILL CLIENT victim')).code, '42601');
    // mosquitto_sub hears it as well.
    const child = spawn('mosquitto_sub', ['-p', String(node.port), '-V', '5', '-i', 'msub', '-t', 'x', '-d']);
    let output = '';
    child.stdout.on('data', (d) => { output += d; });
    child.stderr.on('data', (d) => { output += d; });
    const exited = new Promise((resolve) => child.on('exit', resolve));
    cleanup(() => child.kill('SIGKILL'));
    await until('mosquitto_sub to be there', async () =>
        (await node.rows("SELECT 1 FROM chronos_subscriptions WHERE client_id = 'msub'")).length === 1);
    assert.equal((await node.sql("KILL CLIENT 'msub'")).row_count, 1);
    await until('it to be told', () => /152|DISCONNECT/i.test(output));
    child.kill();
    await exited;
    // From the command line.
    await node.client({ clientId: 'cli-victim' });
    const killed = await node.cli(['-e', "KILL CLIENT 'cli-victim'"]);
    assert.equal(killed.code, 0, killed.stderr);
    assert.equal((await node.cli(['-e', "KILL CLIENT 'cli-victim'"])).code !== 0, true);
});

test('roles: who may look, and who may end a client', async () => {
    const dir = tempDir();
    const passwd = join(dir, 'passwd');
    for (const [i, user] of ['root', 'ro', 'rw', 'dev'].entries())
        assert.equal((await run(BIN, ['passwd', ...(i ? [] : ['-c']), '-b', passwd, user, `pw-${user}`])).code, 0);
    writeFileSync(join(dir, 'conf'), ['user_role root admin', 'user_role ro readonly', 'user_role rw readwrite',
        'user_role dev device', `password_file ${passwd}`].join('\n') + '\n');
    const node = await new Chronos(join(dir, 'data'), ['--config', join(dir, 'conf')]).start();
    const ask = (user, sql) => node.cli(['-u', user, '-P', `pw-${user}`, '--format', 'csv', '-e', sql]);
    await node.client({ clientId: 'sensor', username: 'dev', password: 'pw-dev' });
    for (const user of ['root', 'ro', 'rw']) {
        const seen = await ask(user, "SELECT username FROM chronos_clients WHERE client_id = 'sensor'");
        assert.match(seen.stdout, /^username\r?\ndev\r?\n$/, `${user}: ${seen.stderr}`);
    }
    for (const [user, sql] of [['dev', 'SELECT * FROM chronos_clients'], ['dev', 'SHOW SESSIONS'],
        ['dev', "KILL CLIENT 'sensor'"], ['ro', "KILL CLIENT 'sensor'"], ['rw', "KILL CLIENT 'sensor'"]]) {
        const refused = await ask(user, sql);
        assert.match(refused.stderr, /42501/, `${user}: ${sql}: ${refused.stdout}`);
        assert.notEqual(refused.code, 0);
    }
    assert.match((await ask('root', 'GRANT SELECT ON chronos_clients TO dev')).stderr, /42809/);
    const killed = await ask('root', "KILL CLIENT 'sensor'");
    assert.equal(killed.code, 0, killed.stderr);
    assert.match(node.stderr, /client disconnected client=sensor .*user=dev reason="Administrative action"/);
});
