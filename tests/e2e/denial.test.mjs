// The denial matrix: role × operation × surface, every cell asserted. Roles admin, readwrite, readonly, device and anonymous,
// and a stranger whom nobody knows; surfaces MQTT over TCP and over WebSocket, HTTP, the CLI, SQL over MQTT 5 and 3.1.1.
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import mqtt from 'mqtt';
import { BIN, Chronos, run, tempDir } from './lib/chronos.mjs';
import { cleanup, test, until } from './lib/harness.mjs';

const roles = ['root', 'rw', 'ro', 'dev', 'anonymous'];
const acl = `# anonymous
topic readwrite open/#
user rw
topic readwrite data/#
topic write sensors/rw/+
user ro
topic readwrite data/#
user dev
topic readwrite data/dev/#
topic write sensors/dev/+
pattern readwrite own/%u/#
`;

async function node({ aclText = acl, extra = [] } = {}) {
    const dir = tempDir();
    const passwd = join(dir, 'passwd');
    for (const [i, user] of roles.slice(0, 4).entries())
        assert.equal((await run(BIN, ['passwd', ...(i ? [] : ['-c']), '-b', passwd, user, `pw-${user}`])).code, 0);
    writeFileSync(join(dir, 'acl'), aclText ?? '');
    writeFileSync(join(dir, 'conf'), ['user_role root admin', 'user_role rw readwrite', 'user_role ro readonly', 'user_role dev device',
        `password_file ${passwd}`, ...(aclText === null ? [] : [`acl_file ${join(dir, 'acl')}`]), 'allow_anonymous true', 'login_backoff 0',
        ...extra, 'listener 0 127.0.0.1', 'protocol websockets'].join('\n') + '\n');
    const chronos = new Chronos(join(dir, 'data'), ['--config', join(dir, 'conf'), '--enable-ingest']);
    await chronos.start();
    const ws = chronos.listeners.find((l) => l.kind === 'ws');
    chronos.urls = { TCP: chronos.url(), WebSocket: `ws://127.0.0.1:${ws.port}/mqtt` };
    await admin(chronos, 'CREATE TABLE t (k STRING, v INT)');
    await admin(chronos, 'CREATE TABLE t2 (k STRING)');
    return chronos;
}

const login = (role) => (role === 'anonymous' ? {} : { username: role, password: `pw-${role}` });
const stranger = { username: 'rw', password: 'wrong' };
const basic = ({ username, password }) => (username ? { Authorization: `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}` } : {});

function connect(url, options) {
    return new Promise((resolve) => {
        const client = mqtt.connect(url, { protocolVersion: 5, reconnectPeriod: 0, ...options });
        cleanup(() => client.endAsync(true).catch(() => {}));
        client.on('connect', () => resolve({ code: 0, client }));
        client.on('error', (err) => resolve({ code: err.code ?? -1, client }));
    });
}
async function client(url, role) {
    const { code, client } = await connect(url, login(role));
    assert.equal(code, 0, `${role} is let in`);
    return client;
}

/** 0, the reason code of PUBACK, or "closed 0x87" with the one of DISCONNECT. */
function publish(client, topic, options = {}) {
    return new Promise((resolve) => {
        let said = 'nothing';
        const disconnect = (packet) => (said = `0x${packet.reasonCode.toString(16)}`);
        const end = (outcome) => {
            client.off('disconnect', disconnect).off('close', closed);
            resolve(outcome);
        };
        const closed = () => end(`closed ${said}`);
        client.on('disconnect', disconnect).on('close', closed);
        client.publish(topic, '1', { qos: 1, ...options }, (err) => {
            if (err && err.code === undefined) return; // the connection went
            end(err ? err.code : 0);
        });
    });
}
const subscribe = (client, filter) => new Promise((resolve) =>
    client.subscribe(filter, { qos: 1 }, (err, granted, packet) => resolve(packet?.granted?.[0] ?? err?.code ?? -1)));

// ---- Topics: what MQTT says over TCP and over WebSocket ----------------------------------------

const N = 0x87; // not authorized
const gone = 'closed 0x87';
const publishes = {
    //                        root rw  ro  dev anonymous
    'data/dev/x':            [0,   0,  N,  0,  N],
    'data/other/x':          [0,   0,  N,  N,  N],
    'open/x':                [0,   N,  N,  N,  0],
    'own/dev/x':             [0,   N,  N,  0,  N],
    'own/rw/x':              [0,   0,  N,  N,  N],
    'own//x':                [0,   N,  N,  N,  N],
    'sensors/dev/temp':      [0,   N,  N,  0,  N], // a reading
    'sensors/rw/temp':       [0,   0,  N,  N,  N],
    '$SYS/x':                [N,   N,  N,  N,  N],
    '$foo':                  [N,   N,  N,  N,  N],
    '$chronos/reject/t':     [N,   N,  N,  N,  N],
    '$chronos/result/x':     [N,   N,  N,  N,  N],
    '$chronos/sql/a/b':      [N,   N,  N,  N,  N],
    '$chronos/peer':         [gone, gone, gone, gone, gone],
    '$chronos/peer/n1/raft': [gone, gone, gone, gone, gone],
    '$chronos/sync':         [gone, gone, gone, gone, gone],
    '$chronos/sync/edge/1':  [gone, gone, gone, gone, gone],
};
const subscriptions = {
    //                            root rw  ro  dev anonymous
    'data/dev/#':                [1,   1,  1,  1,  N],
    'data/other/x':              [1,   1,  1,  N,  N],
    'open/#':                    [1,   N,  N,  N,  1],
    'own/dev/+':                 [1,   N,  N,  1,  N],
    'own/rw/+':                  [1,   1,  N,  N,  N],
    'sensors/dev/temp':          [1,   N,  N,  N,  N], // writing is not reading
    '#':                         [1,   1,  1,  1,  1], // something could be read
    '+/+/x':                     [1,   1,  1,  1,  1],
    'nobody/#':                  [1,   N,  N,  N,  N],
    '$SYS/#':                    [1,   N,  N,  N,  N],
    '$share/g/data/dev/#':       [1,   1,  1,  1,  N],
    '$share/g/data/other/x':     [1,   1,  1,  N,  N],
    '$share/g/data/#':           [1,   1,  1,  N,  N], // dev may read a part: it would take the rest from others
    '$share/g/#':                [1,   N,  N,  N,  N],
    '$chronos/reject/#':         [1,   N,  N,  N,  N],
    '$chronos/result/mine':      [1,   1,  1,  1,  1], // only the asker's answers come (R1)
    '$chronos/result/+':         [N,   N,  N,  N,  N],
    '$chronos/result/#':         [N,   N,  N,  N,  N],
    '$chronos/#':                [N,   N,  N,  N,  N],
    '$chronos/+/x':              [N,   N,  N,  N,  N],
    '$chronos/sql':              [N,   N,  N,  N,  N],
    '$chronos/peer/#':           [N,   N,  N,  N,  N],
    '$chronos/peer/n1/raft':     [N,   N,  N,  N,  N],
    '$chronos/sync/#':           [N,   N,  N,  N,  N],
    '$chronos/sync/edge/1':      [N,   N,  N,  N,  N],
    '$share/g/$chronos/peer/#':  [N,   N,  N,  N,  N],
    '$share/g/$chronos/sync/#':  [N,   N,  N,  N,  N],
};
const wills = {
    //                       root rw  ro  dev anonymous
    'data/dev/w':           [0,   0,  N,  0,  N],
    'data/other/w':         [0,   0,  N,  N,  N],
    'open/w':               [0,   N,  N,  N,  0],
    '$chronos/peer/n1':     [N,   N,  N,  N,  N],
    '$chronos/sync/edge/1': [N,   N,  N,  N,  N],
    '$SYS/x':               [N,   N,  N,  N,  N],
};
/** Where SQL may be told to answer. */
const responses = {
    //                       root rw  ro  dev anonymous
    'data/dev/r':           [0,   0,  N,  0,  N],
    'data/other/r':         [0,   0,  N,  N,  N],
    'open/r':               [0,   N,  N,  N,  0],
    'sensors/dev/temp':     [N,   N,  N,  N,  N], // no answer is a reading
    '$chronos/peer/n1':     [N,   N,  N,  N,  N],
    '$chronos/sync/edge/1': [N,   N,  N,  N,  N],
    '$chronos/sql':         [N,   N,  N,  N,  N],
    '$SYS/x':               [N,   N,  N,  N,  N],
};

/** Every cell of a table for one role; ask(row) tells what happens. */
async function column(table, role, surface, ask) {
    for (const [row, cells] of Object.entries(table))
        assert.equal(await ask(row), cells[roles.indexOf(role)], `${role}: ${row} over ${surface}`);
}

for (const surface of ['TCP', 'WebSocket']) {
    test(`the denial matrix: topics over ${surface}`, async () => {
        const chronos = await node();
        const url = chronos.urls[surface];
        for (const role of roles) {
            let c = await client(url, role);
            for (const retain of [false, true])
                await column(publishes, role, surface, async (topic) => {
                    const code = await publish(c, topic, { retain });
                    if (typeof code === 'string') c = await client(url, role);
                    return code;
                });
            await column(subscriptions, role, surface, (filter) => subscribe(c, filter));
            await column(wills, role, surface, async (topic) => {
                const { code, client: with_will } = await connect(url, { ...login(role), will: { topic, payload: 'x' } });
                await with_will.endAsync();
                return code;
            });
            await column(responses, role, surface, (topic) =>
                publish(c, '$chronos/sql', { properties: { responseTopic: topic } }));
        }
        assert.equal((await connect(url, stranger)).code, 0x86, 'a stranger');
        assert.equal((await connect(url, { ...stranger, protocolVersion: 4 })).code, 4, 'in 3.1.1');
    });

    test(`the denial matrix: what is delivered over ${surface}`, async () => {
        const chronos = await node();
        const url = chronos.urls[surface];
        const sent = ['data/dev/a', 'data/other/a', 'open/a', 'own/dev/a', 'own/rw/a', 'sensors/dev/temp', 'nobody/a'];
        const readable = {
            root: sent,
            rw: ['data/dev/a', 'data/other/a', 'own/rw/a'],
            ro: ['data/dev/a', 'data/other/a'],
            dev: ['data/dev/a', 'own/dev/a'],
            anonymous: ['open/a'],
        };
        const root = await client(url, 'root');
        for (const topic of sent) await root.publishAsync(`kept/${topic}`, '1', { qos: 1, retain: true });
        const got = {}, clients = {};
        for (const role of roles) {
            const c = (clients[role] = await client(url, role));
            got[role] = [];
            c.on('message', (topic) => got[role].push(topic));
            assert.equal(await subscribe(c, '#'), 1);
        }
        for (const topic of sent) await root.publishAsync(topic, '1', { qos: 1 });
        // Last, something that each may read: all that came before it has come.
        for (const topic of ['data/dev/mark', 'open/mark']) await root.publishAsync(topic, '1', { qos: 1 });
        for (const role of roles) {
            await until(`${role}'s mark`, () => got[role].some((topic) => topic.endsWith('/mark')));
            assert.deepEqual(got[role].filter((topic) => !topic.endsWith('/mark') && !topic.startsWith('kept/')), readable[role], role);
            if (role !== 'root') assert.ok(!got[role].some((topic) => topic.startsWith('kept/')), `${role}: retained`);
        }
    });

    test(`the denial matrix: without an ACL file, over ${surface}`, async () => {
        const chronos = await node({ aclText: null });
        const url = chronos.urls[surface];
        const bare = {
            publishes: {
                'data/dev/x':            [0, 0, N, 0, 0],
                'sensors/dev/temp':      [0, 0, N, 0, 0],
                '$chronos/peer/n1/raft': [gone, gone, gone, gone, gone],
                '$chronos/sync/edge/1':  [gone, gone, gone, gone, gone],
            },
            subscriptions: {
                'data/#':            [1, 1, 1, 1, 1],
                '$SYS/#':            [1, 1, 1, 1, 1],
                '$chronos/reject/#': [1, 1, 1, N, N],
                '$chronos/peer/#':   [N, N, N, N, N],
                '$chronos/sync/#':   [N, N, N, N, N],
            },
        };
        for (const role of roles) {
            let c = await client(url, role);
            await column(bare.publishes, role, surface, async (topic) => {
                const code = await publish(c, topic);
                if (typeof code === 'string') c = await client(url, role);
                return code;
            });
            await column(bare.subscriptions, role, surface, (filter) => subscribe(c, filter));
        }
    });
}

// ---- SQL: the same over MQTT 5, MQTT 3.1.1, WebSocket, HTTP and the CLI ------------------------

const no = '42501', ok = 'ok', none = '42704';
const statements = {
    //                                          root rw  ro  dev anonymous
    'SELECT count(*) FROM t':                  [ok,  ok, ok, no, no],
    'EXPLAIN SELECT * FROM t':                 [ok,  ok, ok, no, no],
    'SELECT count(*) FROM readings':           [ok,  ok, ok, no, no],
    "INSERT INTO t VALUES ('a', 1)":           [ok,  ok, no, no, no],
    "UPDATE t SET v = 2 WHERE k = 'a'":        [ok,  ok, no, no, no],
    "DELETE FROM t WHERE k = 'zzz'":           [ok,  ok, no, no, no],
    'DESCRIBE t':                              [ok,  ok, ok, no, no],
    'CREATE TABLE IF NOT EXISTS made (x INT)': [ok,  no, no, no, no],
    'DROP TABLE IF EXISTS nothing':            [ok,  no, no, no, no],
    'TRUNCATE t2':                             [ok,  no, no, no, no],
    'GRANT SELECT ON t2 TO somebody':          [ok,  no, no, no, no],
    'REVOKE SELECT ON t2 FROM somebody':       [ok,  no, no, no, no],
    'SHOW CLIENTS':                            [ok,  ok, ok, no, no],
    'SHOW SUBSCRIPTIONS':                      [ok,  ok, ok, no, no],
    'SELECT count(*) FROM chronos_sessions':   [ok,  ok, ok, no, no],
    'SELECT count(*) FROM chronos_rejects':    [ok,  ok, ok, no, no],
    "KILL CLIENT 'nobody-there'":              [none, no, no, no, no],
    'RETRY REJECTS FOR t':                     [ok,  ok, no, no, no],
    'SHOW TABLES':                             [ok,  ok, ok, ok, ok], // of those it may use
    'SELECT 1':                                [ok,  ok, ok, ok, ok],
};

let tokens = 0;
async function overMqtt(client, text) {
    const token = `${process.pid}x${++tokens}`;
    const topic = `$chronos/result/${token}`;
    await client.subscribeAsync(topic, { qos: 1 });
    const answer = new Promise((resolve) => {
        const listen = (t, payload) => {
            if (t !== topic) return;
            client.off('message', listen);
            resolve(JSON.parse(payload.toString()));
        };
        client.on('message', listen);
    });
    await client.publishAsync(`$chronos/sql/${token}`, text, { qos: 1 });
    const document = await answer;
    await client.unsubscribeAsync(topic);
    return document.error ? document.error.code : ok;
}
async function overHttp(chronos, who, text) {
    const r = await chronos.http('/query', { method: 'POST', body: text, headers: basic(who) });
    return r.status === 200 ? ok : r.status === 401 ? 401 : JSON.parse(r.text).error.code;
}
async function byCli(chronos, who, text) {
    const r = await chronos.cli([...(who.username ? ['-u', who.username, '-P', who.password] : []), '-e', text]);
    return r.code === 0 ? ok : (/ERROR (\w+):/.exec(r.stderr)?.[1] ?? r.stderr.trim());
}
async function admin(chronos, text) {
    assert.equal(await overHttp(chronos, login('root'), text), ok, text);
}

test('the denial matrix: SQL over MQTT', async () => {
    const chronos = await node();
    for (const role of roles)
        for (const [surface, url] of Object.entries(chronos.urls))
            for (const protocolVersion of [5, 4]) {
                const { client } = await connect(url, { ...login(role), protocolVersion });
                await column(statements, role, `${surface}, version ${protocolVersion}`, (text) => overMqtt(client, text));
                await client.endAsync(true);
            }
});

test('the denial matrix: SQL over HTTP', async () => {
    const chronos = await node();
    for (const role of roles) await column(statements, role, 'HTTP', (text) => overHttp(chronos, login(role), text));
    for (const text of Object.keys(statements)) assert.equal(await overHttp(chronos, stranger, text), 401, `a stranger: ${text}`);
});

test('the denial matrix: SQL by the CLI', async () => {
    const chronos = await node();
    for (const role of roles) await column(statements, role, 'the CLI', (text) => byCli(chronos, login(role), text));
    assert.match(await byCli(chronos, stranger, 'SELECT 1'), /can't connect to .*: bad user name or password/i);
});

test('the denial matrix: HTTP', async () => {
    const chronos = await node();
    const reading = '{"device_id":"m","metrics":{"a":1}}';
    const requests = {
        //                root rw   ro   dev  anonymous
        'GET /health':   [200, 200, 200, 200, 200],
        'GET /':         [200, 200, 200, 200, 200],
        'GET /metrics':  [200, 200, 200, 403, 403],
        'POST /query':   [200, 200, 200, 200, 200], // SELECT 1: who may ask at all
        'POST /ingest':  [200, 200, 403, 403, 403],
        'GET /nothing':  [404, 404, 404, 404, 404],
    };
    const bodies = { '/query': 'SELECT 1', '/ingest': reading };
    const ask = async (row, who) => {
        const [method, path] = row.split(' ');
        return (await chronos.http(path, { method, body: bodies[path], headers: basic(who) })).status;
    };
    for (const role of roles) await column(requests, role, 'HTTP', (row) => ask(row, login(role)));
    for (const row of Object.keys(requests))
        assert.equal(await ask(row, stranger), { 'GET /health': 200, 'GET /': 200, 'GET /nothing': 404 }[row] ?? 401, `a stranger: ${row}`);
});

test('a table is as closed to those who come by another road: what GRANT gives, it gives on every surface', async () => {
    const chronos = await node();
    await admin(chronos, 'GRANT SELECT ON t TO dev');
    await admin(chronos, 'REVOKE INSERT ON t FROM ROLE readwrite');
    for (const [role, cells] of Object.entries({ dev: [ok, no], rw: [ok, no], ro: [ok, no] })) {
        const texts = ['SELECT count(*) FROM t', "INSERT INTO t VALUES ('b', 2)"];
        const asked = {
            MQTT: async (text) => overMqtt(await client(chronos.urls.TCP, role), text),
            WebSocket: async (text) => overMqtt(await client(chronos.urls.WebSocket, role), text),
            HTTP: (text) => overHttp(chronos, login(role), text),
            'the CLI': (text) => byCli(chronos, login(role), text),
        };
        for (const [surface, ask] of Object.entries(asked))
            for (const [i, text] of texts.entries()) assert.equal(await ask(text), cells[i], `${role}: ${text} over ${surface}`);
    }
});
