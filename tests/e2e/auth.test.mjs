// Who may come in and what they may do: passwords as Mosquitto's tools make them, tokens, JWT, ACLs, roles and
// GRANT. The matrix role × operation × surface is in denial.test.mjs.
import assert from 'node:assert/strict';
import { createHmac, createSign, generateKeyPairSync } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import mqtt from 'mqtt';
import { BIN, Chronos, run, startChronos, tempDir } from './lib/chronos.mjs';
import { cleanup, skip, test, until } from './lib/harness.mjs';

const ADMIN = 'admin-token-0123456789';
const READONLY = 'readonly-token-0123456789';
const secret = 'a secret of at least thirty-two bytes.';

const b64 = (value) => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url');
function hs256(claims, header = { alg: 'HS256', typ: 'JWT' }, key = secret) {
    const signed = `${b64(header)}.${b64(claims)}`;
    return `${signed}.${createHmac('sha256', key).update(signed).digest('base64url')}`;
}
const later = () => Math.floor(Date.now() / 1000) + 3600;

const acl = `# anonymous
topic read open/#
user dev
topic readwrite data/dev/#
topic deny data/dev/secret
topic write sensors/dev/+
user rw
topic readwrite #
topic read $SYS/#
user ro
topic read data/#
pattern readwrite own/%c/%u
`;

/** Users of every kind of hash, made by the tools operators use. */
async function users(dir) {
    const file = join(dir, 'passwd');
    const check = (r) => assert.equal(r.code, 0, r.stderr);
    check(await run(BIN, ['passwd', '-c', '-b', file, 'root', 'pw-root']));
    check(await run('mosquitto_passwd', ['-b', file, 'rw', 'pw-rw']));
    check(await run('mosquitto_passwd', ['-H', 'sha512', '-b', file, 'ro', 'pw-ro']));
    check(await run(BIN, ['passwd', '--scram', '-b', file, 'scram', 'pw-scram']));
    const hashed = await run('argon2', ['0123456789abcdef', '-id', '-t', '1', '-m', '10', '-p', '1', '-e'], { input: 'pw-dev' });
    check(hashed);
    writeFileSync(file, readFileSync(file, 'utf8') + `dev:${hashed.stdout.trim()}\n`);
    return file;
}

async function node(extra = [], { aclText = acl } = {}) {
    const dir = tempDir();
    const passwd = await users(dir);
    writeFileSync(join(dir, 'acl'), aclText);
    writeFileSync(join(dir, 'secret'), secret + '\n');
    writeFileSync(join(dir, 'conf'), ['user_role root admin', 'user_role rw readwrite', 'user_role ro readonly',
        `password_file ${passwd}`, `acl_file ${join(dir, 'acl')}`, `jwt_secret_file ${join(dir, 'secret')}`,
        'login_backoff 0', ...extra].join('\n') + '\n');
    const chronos = new Chronos(join(dir, 'data'), ['--config', join(dir, 'conf'), '--enable-ingest'],
        { CHRONOS_AUTH_TOKEN_ADMIN: ADMIN, CHRONOS_AUTH_TOKEN_READONLY: READONLY });
    chronos.dir = dir;
    await chronos.start();
    return chronos;
}

/** The reason code of CONNACK: 0 when let in. */
async function login(chronos, username, password, more = {}) {
    return new Promise((resolve) => {
        const client = mqtt.connect(chronos.url(), { protocolVersion: 5, reconnectPeriod: 0, username, password, ...more });
        cleanup(() => client.endAsync(true).catch(() => {}));
        client.on('connect', () => { client.end(true); resolve(0); });
        client.on('error', (err) => { client.end(true); resolve(err.code ?? -1); });
    });
}

const as = (user) => ({ username: user, password: `pw-${user}` });
const basic = (user) => ({ Authorization: `Basic ${Buffer.from(`${user}:pw-${user}`).toString('base64')}` });

async function subscribeCode(client, topic) {
    return new Promise((resolve) => client.subscribe(topic, { qos: 1 }, (err, granted, packet) =>
        resolve((packet?.granted ?? granted?.map((g) => g.qos) ?? [])[0] ?? err?.code ?? -1)));
}

/** SQL as somebody: the SQLSTATE, or "ok". */
async function sqlOverHttp(chronos, user, text) {
    const r = await chronos.http('/query', { method: 'POST', body: text, headers: basic(user) });
    return r.status === 200 ? 'ok' : JSON.parse(r.text).error.code;
}

test('passwords of every kind, tokens and JWT let their users in, and nobody else', async () => {
    const chronos = await node();
    for (const user of ['root', 'rw', 'ro', 'dev', 'scram']) {
        assert.equal(await login(chronos, user, `pw-${user}`), 0, user);
        assert.equal(await login(chronos, user, 'wrong'), 0x86, `${user}, wrong password`);
    }
    assert.equal(await login(chronos, 'nobody', 'pw-root'), 0x86);
    assert.equal(await login(chronos, 'root', undefined), 0x86);
    assert.equal(await login(chronos, undefined, undefined), 0x87, 'anonymous');
    assert.equal(await login(chronos, 'rw', 'wrong', { protocolVersion: 4 }), 4, '3.1.1: bad user name or password');
    assert.equal(await login(chronos, undefined, undefined, { protocolVersion: 4 }), 5, '3.1.1: not authorized');
    assert.equal(await login(chronos, 'token', ADMIN), 0);
    assert.equal(await login(chronos, 'anything', READONLY), 0);
    assert.equal(await login(chronos, 'token', ADMIN + 'x'), 0x86);

    assert.equal(await login(chronos, 'jwt', hs256({ sub: 'esp', exp: later() })), 0);
    const bad = {
        'no signature': hs256({ sub: 'esp', exp: later() }).replace(/\.[^.]*$/, '.AAAA'),
        'another key': hs256({ sub: 'esp', exp: later() }, undefined, 'another secret of thirty-two bytes!!'),
        'alg none': `${b64({ alg: 'none' })}.${b64({ sub: 'esp', exp: later() })}.`,
        'alg none, signed': hs256({ sub: 'esp', exp: later() }, { alg: 'none' }),
        'alg RS256 with the secret': hs256({ sub: 'esp', exp: later() }, { alg: 'RS256' }),
        'crit': hs256({ sub: 'esp', exp: later() }, { alg: 'HS256', crit: ['exp'] }),
        'two algs': (() => { const s = `${b64('{"alg":"none","alg":"HS256"}')}.${b64({ sub: 'esp', exp: later() })}`;
            return `${s}.${createHmac('sha256', secret).update(s).digest('base64url')}`; })(),
        'expired': hs256({ sub: 'esp', exp: 1000 }),
        'no exp': hs256({ sub: 'esp' }),
        'not yet': hs256({ sub: 'esp', exp: later(), nbf: later() }),
        'no sub': hs256({ exp: later() }),
        'unknown role': hs256({ sub: 'esp', exp: later(), role: 'king' }),
        'no filter': hs256({ sub: 'esp', exp: later(), publish: ['a/#/b'] }),
    };
    for (const [why, token] of Object.entries(bad)) assert.equal(await login(chronos, 'jwt', token), 0x86, why);
    assert.match(chronos.stderr, /login refused/);
    assert.doesNotMatch(chronos.stderr, /pw-root|pw-rw/, 'no password in the log');
});

test('JWT with a public key: RS256 and ES256, issuer and audience; a public key is no secret', async () => {
    for (const [alg, pair, extra] of [
        ['RS256', generateKeyPairSync('rsa', { modulusLength: 2048 }), {}],
        ['ES256', generateKeyPairSync('ec', { namedCurve: 'prime256v1' }), { dsaEncoding: 'ieee-p1363' }]]) {
        const dir = tempDir();
        const pem = pair.publicKey.export({ type: 'spki', format: 'pem' });
        writeFileSync(join(dir, 'key.pem'), pem);
        const chronos = await startChronos(['--jwt-public-key-file', join(dir, 'key.pem'), '--jwt-issuer', 'us',
            '--jwt-audience', 'chronos', '--login-backoff', '0']);
        const sign = (claims) => {
            const signed = `${b64({ alg, typ: 'JWT' })}.${b64(claims)}`;
            return `${signed}.${createSign('SHA256').update(signed).sign({ key: pair.privateKey, ...extra }).toString('base64url')}`;
        };
        const good = { sub: 'esp', exp: later(), iss: 'us', aud: ['x', 'chronos'] };
        assert.equal(await login(chronos, 'jwt', sign(good)), 0, alg);
        assert.equal(await login(chronos, 'jwt', sign({ ...good, iss: 'them' })), 0x86, 'issuer');
        assert.equal(await login(chronos, 'jwt', sign({ ...good, aud: 'other' })), 0x86, 'audience');
        assert.equal(await login(chronos, 'jwt', hs256(good, undefined, pem)), 0x86, 'HS256 with the public key');
    }
});

test('topics of a token stand in the place of the ACL file', async () => {
    const chronos = await node();
    const token = hs256({ sub: 'esp', exp: later(), publish: ['up/%u/%c'], subscribe: ['down/#'] });
    const client = await chronos.client({ username: 'jwt', password: token, clientId: 'c1' });
    assert.equal((await chronos.publish(client, 'up/esp/c1', 'x')).code, 0);
    assert.equal((await chronos.publish(client, 'up/esp/c2', 'x')).code, 0x87);
    assert.equal(await subscribeCode(client, 'down/1'), 1);
    assert.equal(await subscribeCode(client, 'up/#'), 0x87);
});

test('ACL: publish, subscribe, delivery, retained, wills', async () => {
    const chronos = await node();
    const dev = await chronos.client({ ...as('dev'), clientId: 'd1' });
    const rw = await chronos.client({ ...as('rw'), clientId: 'w1' });
    assert.equal((await chronos.publish(dev, 'data/dev/a', '1')).code, 0);
    assert.equal((await chronos.publish(dev, 'data/dev/secret', '1')).code, 0x87);
    assert.equal((await chronos.publish(dev, 'data/rw/a', '1')).code, 0x87);
    assert.equal((await chronos.publish(dev, 'own/d1/dev', '1')).code, 0, 'pattern');
    assert.equal((await chronos.publish(dev, 'own/d2/dev', '1')).code, 0x87, 'pattern of another');
    // A mapped topic is governed by the same rules, and the second message by the remembered verdict.
    for (let i = 0; i < 3; i++) {
        assert.equal((await chronos.publish(dev, 'sensors/dev/temp', '1')).code, 0);
        assert.equal((await chronos.publish(dev, 'sensors/rw/temp', '1')).code, 0x87);
    }
    assert.equal(await subscribeCode(dev, '#'), 1, 'something could be read');
    assert.equal(await subscribeCode(dev, 'data/rw/#'), 0x87);
    assert.equal(await subscribeCode(dev, 'data/dev/secret'), 0x87);
    await rw.publishAsync('data/dev/kept', 'k', { qos: 1, retain: true });
    await rw.publishAsync('data/rw/kept', 'k', { qos: 1, retain: true });
    const got = [];
    dev.on('message', (topic) => got.push(topic));
    await rw.publishAsync('data/rw/hidden', 'x', { qos: 1 });
    await rw.publishAsync('data/dev/secret', 'x', { qos: 1 });
    await rw.publishAsync('data/dev/last', 'x', { qos: 1 });
    await until('the last message', () => got.includes('data/dev/last'));
    assert.ok(!got.some((t) => t.startsWith('data/rw') || t.endsWith('secret')), String(got));
    const fresh = await chronos.client({ ...as('dev'), clientId: 'd3' });
    const kept = [];
    fresh.on('message', (topic) => kept.push(topic));
    await fresh.subscribeAsync('#', { qos: 1 });
    await rw.publishAsync('data/dev/mark', 'x', { qos: 1 });
    await until('the mark', () => kept.includes('data/dev/mark'));
    assert.deepEqual(kept.filter((t) => t.endsWith('kept')), ['data/dev/kept']);
    const will = (topic) => login(chronos, 'dev', 'pw-dev', { will: { topic, payload: 'x' } });
    assert.equal(await will('data/dev/gone'), 0);
    assert.equal(await will('data/rw/gone'), 0x87);
    // 3.1.1 can't be told: acknowledged, and nobody gets it.
    const old = await chronos.client({ ...as('dev'), protocolVersion: 4, clientId: 'd4' });
    await old.publishAsync('data/rw/old', 'x', { qos: 2 });
    await until('the audit line', () => /denied operation=publish object=data\/rw\/old/.test(chronos.stderr));
});

test('a session belongs to its user', async () => {
    const chronos = await node();
    const options = { clean: false, clientId: 'same', properties: { sessionExpiryInterval: 300 } };
    const dev = await chronos.client({ ...as('dev'), ...options });
    await dev.subscribeAsync('data/dev/#', { qos: 1 });
    await dev.endAsync(true);
    const present = (user) => new Promise((resolve, reject) => {
        const client = mqtt.connect(chronos.url(), { protocolVersion: 5, reconnectPeriod: 0, ...as(user), ...options });
        cleanup(() => client.endAsync(true).catch(() => {}));
        client.on('connect', (packet) => { client.end(true); resolve(packet.sessionPresent); });
        client.on('error', reject);
    });
    assert.equal(await present('dev'), true);
    assert.equal(await present('rw'), false, "another user's session is not handed over");
});

// The log knows whose a session is: the node does not forget it when it starts again, from its log or a checkpoint.
for (const how of ['killed', 'stopped']) {
    test(`a session belongs to its user after the node was ${how}`, async () => {
        const chronos = await node();
        const options = (clientId) => ({ clean: false, clientId, properties: { sessionExpiryInterval: 300 } });
        const park = async (user, clientId) => {
            const client = await chronos.client({ ...as(user), ...options(clientId) });
            await client.subscribeAsync('data/dev/#', { qos: 1 });
            await client.endAsync(true);
        };
        await park('dev', 'own');
        await park('dev', 'taken');
        await park('root', 'roots');
        const rw = await chronos.client(as('rw'));
        await rw.publishAsync('data/dev/x', 'for dev', { qos: 1 });
        if (how === 'stopped') await chronos.stop();
        await chronos.restart();
        const back = async (user, clientId) => {
            const got = [];
            const client = mqtt.connect(chronos.url(), { protocolVersion: 5, reconnectPeriod: 0, ...as(user), ...options(clientId) });
            cleanup(() => client.endAsync(true).catch(() => {}));
            client.on('message', (topic, payload) => got.push(String(payload)));
            const packet = await new Promise((resolve, reject) => client.on('connect', resolve).on('error', reject));
            return { present: packet.sessionPresent, got };
        };
        const own = await back('dev', 'own');
        assert.equal(own.present, true);
        await until('what was queued', () => own.got.includes('for dev'));
        const thief = await back('rw', 'taken');
        assert.equal(thief.present, false, "another user's session is not handed over");
        const late = await back('dev', 'taken');
        assert.equal(late.present, false, 'and is gone');
        const ro = await back('ro', 'roots');
        assert.equal(ro.present, false);
        const again = await chronos.client(as('rw'));
        await again.publishAsync('data/dev/x', 'mark', { qos: 1 });
        await until('the mark', () => own.got.includes('mark'));
        for (const other of [thief, late, ro]) assert.deepEqual(other.got, []);
    });
}

const no = '42501', ok = 'ok';

test('tokens over HTTP', async () => {
    const chronos = await node();
    assert.equal(await sqlOverHttp(chronos, 'root', 'CREATE TABLE t (k STRING, v INT)'), ok);
    const status = async (headers) => (await chronos.http('/query', { method: 'POST', body: 'DELETE FROM t', headers })).status;
    const bearer = (token) => status({ Authorization: `Bearer ${token}` });
    assert.equal(await status({}), 401);
    assert.equal(await bearer(ADMIN), 200);
    assert.equal(await bearer(READONLY), 403);
    assert.equal(await bearer('nonsense'), 401);
    assert.equal(await bearer(hs256({ sub: 'x', exp: later(), role: 'readwrite' })), 200);
    assert.equal(await bearer(hs256({ sub: 'x', exp: later(), role: 'device' })), 403);
    assert.equal((await chronos.http('/metrics')).status, 401);
    assert.equal((await chronos.http('/health')).status, 200);
});

test('over HTTP a stranger is refused before the body', async () => {
    const chronos = await node();
    assert.equal(await sqlOverHttp(chronos, 'root', 'CREATE TABLE t (k STRING, v INT)'), ok);
    const { hostname, port } = new URL(chronos.admin);
    /** The status lines that come in answer to headers alone; then the body, and those that come after it. */
    const ask = async (path, authorization, body) => {
        const socket = connect(Number(port), hostname);
        cleanup(() => socket.destroy());
        let got = '';
        socket.on('data', (data) => { got += data; }).on('error', () => {});
        const statuses = () => [...got.matchAll(/^HTTP\/1\.1 (\d+)/gm)].map((m) => Number(m[1]));
        socket.write(`POST ${path} HTTP/1.1\r\nHost: ${hostname}\r\nContent-Length: ${body.length}\r\nExpect: 100-continue\r\n`
            + (authorization ? `Authorization: ${authorization}\r\n` : '') + '\r\n');
        await until('an answer to the headers', () => statuses().length);
        if (statuses()[0] !== 100) return statuses();
        socket.write(body);
        await until('an answer to the body', () => statuses().length > 1);
        return statuses();
    };
    const password = (user, text) => `Basic ${Buffer.from(`${user}:${text}`).toString('base64')}`;
    const insert = "INSERT INTO t VALUES ('a', 1)";
    assert.deepEqual(await ask('/query', null, insert), [401]);
    assert.deepEqual(await ask('/query', 'Bearer nonsense', insert), [401]);
    assert.deepEqual(await ask('/query', password('root', 'wrong'), insert), [401]);
    assert.deepEqual(await ask('/ingest', password('dev', 'pw-dev'), '{}'), [403], 'it may not insert there');
    assert.deepEqual(await ask('/query', password('root', 'pw-root'), insert), [100, 200]);
    assert.deepEqual(await ask('/query', `Bearer ${ADMIN}`, insert), [100, 200]);
});

test('GRANT and REVOKE, kept over a restart', async () => {
    const chronos = await node();
    const root = (text) => sqlOverHttp(chronos, 'root', text);
    const dev = (text) => sqlOverHttp(chronos, 'dev', text);
    const ro = (text) => sqlOverHttp(chronos, 'ro', text);
    assert.equal(await root('CREATE TABLE t (k STRING, v INT)'), ok);
    assert.equal(await root('GRANT SELECT, INSERT ON TABLE t TO dev, USER ro'), ok);
    assert.equal(await dev('SELECT * FROM t'), ok);
    assert.equal(await dev("INSERT INTO t VALUES ('a', 1)"), ok);
    assert.equal(await ro("INSERT INTO t VALUES ('b', 1)"), ok);
    assert.equal(await dev("DELETE FROM t WHERE k = 'a'"), no);
    assert.equal(await dev("INSERT INTO t VALUES ('a', 1) ON CONFLICT DO UPDATE SET v = 2"), no, 'UPDATE too');
    assert.equal(await root('GRANT DELETE ON t TO PUBLIC'), ok);
    assert.equal(await dev("DELETE FROM t WHERE k = 'a'"), ok);
    assert.equal(await root('REVOKE SELECT ON t FROM ROLE readonly'), ok);
    assert.equal(await ro('SELECT * FROM t'), ok, 'it has one of its own');
    assert.equal(await root('REVOKE ALL PRIVILEGES ON t FROM ro'), ok);
    assert.equal(await ro('SELECT * FROM t'), no, 'and now neither');
    assert.equal(await ro('SELECT * FROM readings'), ok, 'other tables as before');
    assert.equal(await root('GRANT SELECT ON nothing TO dev'), '42P01');
    assert.equal(await root('GRANT FLY ON t TO dev'), '42601');
    assert.equal(await root('GRANT SELECT ON t TO ROLE king'), '42704');
    await chronos.restart();
    assert.equal(await dev('SELECT * FROM t'), ok);
    assert.equal(await ro('SELECT * FROM t'), no);
    const shown = JSON.parse((await chronos.http('/query', { method: 'POST', body: 'SHOW GRANTS', headers: basic('root') })).text);
    assert.deepEqual(shown.rows, [
        ['t', 'user', 'dev', 'SELECT, INSERT'], ['t', 'role', 'readonly', 'none'], ['t', 'public', null, 'DELETE']]);
    const tables = JSON.parse((await chronos.http('/query', { method: 'POST', body: 'SHOW TABLES', headers: basic('dev') })).text);
    assert.deepEqual(tables.rows.map((r) => r[0]), ['t'], 'only what it may use');
});

test('R1: an answer is for who asked, whoever else listens', async () => {
    const chronos = await node();
    const spy = await chronos.client(as('ro'));
    const rw = await chronos.client(as('rw'));
    const seen = [];
    spy.on('message', (topic) => seen.push(topic));
    await spy.subscribeAsync(['$chronos/result/spied', 'data/#'], { qos: 1 });
    await rw.subscribeAsync('$chronos/result/spied', { qos: 1 });
    const mine = new Promise((resolve) => rw.on('message', (t) => t === '$chronos/result/spied' && resolve()));
    await rw.publishAsync('$chronos/sql/spied', 'SELECT 1', { qos: 1 });
    await mine;
    await rw.publishAsync('data/mark', 'x', { qos: 1 });
    await until('the mark', () => seen.includes('data/mark'));
    assert.deepEqual(seen, ['data/mark']);
    // And to no topic that the asker could not publish to.
    const dev = await chronos.client(as('dev'));
    const answer = await chronos.publish(dev, '$chronos/sql', 'SELECT 1', { properties: { responseTopic: 'data/rw/reply' } });
    assert.equal(answer.code, 0x87);
});

test('failed logins have to wait', async () => {
    const dir = tempDir();
    const file = join(dir, 'passwd');
    await run(BIN, ['passwd', '-c', '-b', file, 'u', 'right']);
    const chronos = await startChronos(['--password-file', file]);
    let last = 0;
    for (let i = 0; i < 40 && last !== 0x9f; i++) last = await login(chronos, 'u', 'wrong');
    assert.equal(last, 0x9f);
    const status = async () => (await chronos.http('/query', { method: 'POST', body: 'SELECT 1',
        headers: { Authorization: 'Bearer wrong-wrong-wrong' } })).status;
    await until('HTTP says so, too', async () => (await status()) === 429);
});

test('a client of another user is not disturbed by a storm of logins', async () => {
    const chronos = await node();
    const rw = await chronos.client(as('rw'));
    const storm = Promise.all(Array.from({ length: 50 }, () => login(chronos, 'dev', 'wrong')));
    for (let i = 0; i < 20; i++) assert.equal((await chronos.publish(rw, 'data/x', String(i))).code, 0);
    assert.ok((await storm).every((code) => code === 0x86));
});

test('files that are wrong are named with their line', async () => {
    const dir = tempDir();
    const path = join(dir, 'f');
    const refused = async (flag, text) => {
        writeFileSync(path, text);
        const r = await run(BIN, ['single-node', '--data-dir', join(dir, 'data'), '--address', '127.0.0.1:0', flag, path]);
        assert.notEqual(r.code, 0);
        return r.stderr;
    };
    assert.match(await refused('--acl-file', 'user a\ntopic sometimes a/b\n'), /f:2: expected read, write, readwrite or deny/);
    assert.match(await refused('--acl-file', 'topic read a/#/b\n'), /f:1: not a valid topic filter/);
    assert.match(await refused('--acl-file', '\n\nhello\n'), /f:3: a line begins with user, topic or pattern/);
    assert.match(await refused('--password-file', 'a:$7$x\n'), /f:1: user "a": a hash of type \$7\$/);
    assert.match(await refused('--password-file', 'a:plain\n'), /f:1: user "a": the password is not hashed/);
    assert.match(await refused('--password-file', 'nonsense\n'), /f:1: a line has the form name:hash/);
    assert.match(await refused('--jwt-secret-file', 'short\n'), /a secret below 32 bytes/);
});

test('chronos passwd writes what mosquitto reads, and keeps the rest of the file', async () => {
    const dir = tempDir();
    const file = join(dir, 'p');
    assert.equal((await run(BIN, ['passwd', '-b', file, 'a', 'x'])).code, 1, '-c makes a new one');
    assert.equal((await run(BIN, ['passwd', '-c', '-b', file, 'a', 'x'])).code, 0);
    writeFileSync(file, readFileSync(file, 'utf8') + '# kept\n');
    assert.equal((await run(BIN, ['passwd', file, 'b'], { input: 'typed\n' })).code, 0);
    assert.equal((await run(BIN, ['passwd', '-b', file, 'a', 'y'])).code, 0);
    assert.match(readFileSync(file, 'utf8'), /^a:\$7\$101\$[^\n]+\n# kept\nb:\$7\$101\$[^\n]+\n$/);
    writeFileSync(file, readFileSync(file, 'utf8').replace('# kept\n', '')); // mosquitto_passwd 2.0 knows no comments
    assert.equal((await run('mosquitto_passwd', ['-D', file, 'b'])).code, 0);
    assert.equal((await run(BIN, ['passwd', '-D', file, 'a'])).code, 0);
    assert.equal((await run(BIN, ['passwd', '-D', file, 'a'])).code, 1);
    assert.equal((await run(BIN, ['passwd', '-b', file, 'a:b', 'y'])).code, 2);
});
