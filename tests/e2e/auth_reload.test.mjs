// Users, ACLs, tokens and keys are read again on SIGHUP; what is refused leaves a line; who guesses has to wait.
import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { join } from 'node:path';
import mqtt from 'mqtt';
import mqttPacket from 'mqtt-packet';
import { BIN, Chronos, run, tempDir } from './lib/chronos.mjs';
import { cleanup, test, until } from './lib/harness.mjs';
import { RawClient, Scram } from './lib/scram.mjs';

const ADMIN = 'admin-token-0123456789';

async function node(backoff = 'login_backoff 0') {
    const dir = tempDir();
    const at = (name) => join(dir, name);
    const passwd = (...args) => run(BIN, ['passwd', ...args]).then((r) => assert.equal(r.code, 0, r.stderr));
    await passwd('-c', '-b', at('passwd'), 'root', 'pw-root');
    await passwd('-b', at('passwd'), 'dev', 'pw-dev');
    await passwd('-H', 'scram', '-b', at('passwd'), 'scram', 'pw-scram');
    writeFileSync(at('acl'), 'user dev\ntopic readwrite dev/#\n');
    writeFileSync(at('secret'), 'the first secret of more than 32 bytes\n');
    const chronos = new Chronos(at('data'), ['--config', at('conf')]);
    chronos.passwd = passwd;
    chronos.file = at;
    chronos.configure = (lines = []) => writeFileSync(at('conf'), ['user_role root admin', `password_file ${at('passwd')}`,
        `acl_file ${at('acl')}`, `jwt_secret_file ${at('secret')}`, backoff, ...lines].join('\n') + '\n');
    chronos.configure();
    /** SIGHUP, and wait until the node has said what came of it. */
    chronos.reload = async (outcome = 'settings read again') => {
        const count = () => chronos.stderr.split(outcome).length;
        const before = count();
        chronos.signal('SIGHUP');
        await until(outcome, () => count() > before);
    };
    return chronos.start();
}

const as = (user) => ({ username: user, password: `pw-${user}` });
function login(chronos, options) {
    return new Promise((resolve) => {
        const client = mqtt.connect(chronos.url(), { protocolVersion: 5, reconnectPeriod: 0, ...options });
        cleanup(() => client.endAsync(true).catch(() => {}));
        client.on('connect', () => { client.end(true); resolve(0); });
        client.on('error', (err) => { client.end(true); resolve(err.code ?? -1); });
    });
}
/** A connected client that remembers how it was disconnected. */
async function watched(chronos, options) {
    const client = await chronos.client(options);
    client.on('disconnect', (packet) => (client.reason = packet.reasonCode));
    client.on('close', () => (client.gone = true));
    return client;
}
const basic = (user) => ({ Authorization: `Basic ${Buffer.from(`${user}:pw-${user}`).toString('base64')}` });
const sql = async (chronos, user, text) => (await chronos.http('/query', { method: 'POST', body: text, headers: basic(user) })).status;

test('SIGHUP: a changed password and a removed user end their connections, and no others', async () => {
    const chronos = await node();
    await chronos.passwd('-b', chronos.file('passwd'), 'gone', 'pw-gone');
    await chronos.reload();
    const root = await watched(chronos, as('root'));
    const dev = await watched(chronos, as('dev'));
    const gone = await watched(chronos, as('gone'));
    const scram = new RawClient(chronos.port);
    assert.equal((await scram.connect(new Scram('scram', 'pw-scram'), 's')).reasonCode, 0);
    await chronos.passwd('-b', chronos.file('passwd'), 'dev', 'another');
    await chronos.passwd('-H', 'scram', '-b', chronos.file('passwd'), 'scram', 'another');
    await chronos.passwd('-D', chronos.file('passwd'), 'gone');
    assert.equal(await login(chronos, as('dev')), 0, 'nothing happens before SIGHUP');
    await chronos.reload();
    for (const client of [dev, gone]) {
        await until('the end of the connection', () => client.gone);
        assert.equal(client.reason, 0x87);
    }
    assert.equal((await scram.next()).reasonCode, 0x87);
    assert.equal(await login(chronos, as('dev')), 0x86);
    assert.equal(await login(chronos, as('gone')), 0x86);
    assert.equal(await login(chronos, { username: 'dev', password: 'another' }), 0);
    assert.equal((await chronos.publish(root, 'x', '1')).code, 0);
    assert.ok(!root.gone, 'whose password stayed, stays');
});

test('SIGHUP: a password changed in the middle of an exchange is the one that counts', async () => {
    const chronos = await node();
    const client = new RawClient(chronos.port);
    const scram = new Scram('scram', 'pw-scram');
    client.begin(scram, 'middle');
    const packet = await client.next();
    await chronos.passwd('-H', 'scram', '-b', chronos.file('passwd'), 'scram', 'another');
    await chronos.reload();
    client.auth(0x18, scram.final(packet.properties.authenticationData));
    assert.equal((await client.next()).reasonCode, 0x87);
    await until('the line', () => /login refused.*user=scram.*the password was changed meanwhile/.test(chronos.stderr));
});

test('SIGHUP: rights by the ACL file change under open connections', async () => {
    const chronos = await node();
    const dev = await watched(chronos, as('dev'));
    const root = await watched(chronos, as('root'));
    const got = [];
    dev.on('message', (topic) => got.push(topic));
    await dev.subscribeAsync('dev/#', { qos: 1 });
    const said = async (topic) => {
        got.length = 0;
        await root.publishAsync(topic, '1', { qos: 1 });
        await root.publishAsync('dev/mark', '1', { qos: 1 });
        await until('the mark', () => got.includes('dev/mark'));
        return got.includes(topic);
    };
    // Twice each: the second time by the remembered verdict.
    for (let i = 0; i < 2; i++) {
        assert.equal((await chronos.publish(dev, 'dev/a', '1')).code, 0);
        assert.equal((await chronos.publish(dev, 'new/a', '1')).code, 0x87);
        assert.equal(await said('dev/secret'), true);
    }
    writeFileSync(chronos.file('acl'), 'user dev\ntopic readwrite new/#\ntopic read dev/#\ntopic deny dev/secret\n');
    await chronos.reload();
    for (let i = 0; i < 2; i++) {
        assert.equal((await chronos.publish(dev, 'dev/a', '1')).code, 0x87);
        assert.equal((await chronos.publish(dev, 'new/a', '1')).code, 0);
        assert.equal(await said('dev/secret'), false);
    }
    assert.ok(!dev.gone);

    // A file with an error changes nothing, and its line is named.
    writeFileSync(chronos.file('acl'), 'user dev\ntopic sometimes x\n');
    await chronos.reload('settings refused');
    assert.match(chronos.stderr, /acl:2: expected read, write, readwrite or deny/);
    assert.equal((await chronos.publish(dev, 'new/a', '1')).code, 0);
    writeFileSync(chronos.file('passwd'), 'dev:nonsense\n');
    writeFileSync(chronos.file('acl'), 'user dev\ntopic readwrite #\n');
    await chronos.reload('settings refused');
    assert.match(chronos.stderr, /passwd:1: user \\"dev\\": the password is not hashed/);
    assert.equal((await chronos.publish(dev, 'dev/a', '1')).code, 0x87, 'all or nothing');
    assert.equal(await login(chronos, as('dev')), 0);
});

test('SIGHUP: a will that is no longer allowed is not published', async () => {
    const chronos = await node();
    const root = await chronos.client(as('root'));
    const got = [];
    root.on('message', (topic) => got.push(topic));
    await root.subscribeAsync('#', { qos: 1 });
    const will = (name) => ({ ...as('dev'), clientId: name, will: { topic: `dev/${name}`, payload: 'x', qos: 1 } });
    const clients = [await chronos.client(will('plain')), await chronos.client(will('plain-allowed')),
        await chronos.client({ ...will('kept'), clean: false, properties: { sessionExpiryInterval: 300 } }), // the log has this one
        await chronos.client({ ...will('kept-allowed'), clean: false, properties: { sessionExpiryInterval: 300 } })];
    writeFileSync(chronos.file('acl'), 'user dev\ntopic deny dev/plain\ntopic deny dev/kept\ntopic readwrite dev/#\n');
    await chronos.reload();
    for (const client of clients) client.stream.destroy();
    for (const name of ['plain', 'kept'])
        await until('the denial', () => new RegExp(`denied operation=will object=dev/${name} user=dev`).test(chronos.stderr));
    await until('those that are allowed', () => got.includes('dev/plain-allowed') && got.includes('dev/kept-allowed'));
    await root.publishAsync('mark', 'x', { qos: 1 });
    await until('the mark', () => got.includes('mark'));
    assert.ok(!got.includes('dev/plain') && !got.includes('dev/kept'), String(got));
});

test('SIGHUP: roles change what SQL may do', async () => {
    const chronos = await node();
    assert.equal(await sql(chronos, 'root', 'CREATE TABLE t (k STRING)'), 200);
    assert.equal(await sql(chronos, 'dev', 'SELECT * FROM t'), 403);
    chronos.configure(['user_role dev readonly']);
    await chronos.reload();
    assert.equal(await sql(chronos, 'dev', 'SELECT * FROM t'), 200);
    assert.equal(await sql(chronos, 'dev', "INSERT INTO t VALUES ('a')"), 403);
    chronos.configure(['user_role dev readwrite']);
    await chronos.reload();
    assert.equal(await sql(chronos, 'dev', "INSERT INTO t VALUES ('a')"), 200);
});

const b64 = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
test('SIGHUP: tokens and keys that are no longer the same end their connections', async () => {
    const chronos = await node();
    chronos.configure([`auth_token_admin ${ADMIN}`]);
    await chronos.reload();
    const text = `${b64({ alg: 'HS256' })}.${b64({ sub: 'esp', exp: Math.floor(Date.now() / 1000) + 3600 })}`;
    const jwt = () => `${text}.${createHmac('sha256', readFileSync(chronos.file('secret'), 'utf8').trim()).update(text).digest('base64url')}`;
    const first = jwt();
    const byToken = await watched(chronos, { username: 'x', password: ADMIN });
    const byJwt = await watched(chronos, { username: 'x', password: first });
    await chronos.reload();
    assert.ok(!byToken.gone && !byJwt.gone, 'the same tokens: nobody goes');
    chronos.configure(['auth_token_admin another-token-0123456789']);
    writeFileSync(chronos.file('secret'), 'the second secret of more than 32 bytes\n');
    await chronos.reload();
    for (const client of [byToken, byJwt]) {
        await until('the end of the connection', () => client.gone);
        assert.equal(client.reason, 0x87);
    }
    assert.equal(await login(chronos, { username: 'x', password: ADMIN }), 0x86);
    assert.equal(await login(chronos, { username: 'x', password: first }), 0x86);
    assert.equal(await login(chronos, { username: 'x', password: 'another-token-0123456789' }), 0);
    assert.equal(await login(chronos, { username: 'x', password: jwt() }), 0);
});

test('SIGHUP: anonymous clients go when they are no longer allowed', async () => {
    const chronos = await node();
    chronos.configure(['allow_anonymous true']);
    await chronos.reload();
    const anonymous = await watched(chronos, {});
    const dev = await watched(chronos, as('dev'));
    chronos.configure(['allow_anonymous false']);
    await chronos.reload();
    await until('the end of the connection', () => anonymous.gone);
    assert.equal(anonymous.reason, 0x87);
    assert.equal(await login(chronos, {}), 0x87);
    assert.equal((await chronos.publish(dev, 'dev/a', '1')).code, 0);
});

// ---- Lines and counters ------------------------------------------------------------------------

test('each denial is a line of the audit log: what, whose, from where, why', async () => {
    const chronos = await node();
    const dev = await chronos.client({ ...as('dev'), clientId: 'd1' });
    await chronos.publish(dev, 'root/a', '1');
    await new Promise((resolve) => dev.subscribe('root/#', resolve));
    await login(chronos, { ...as('dev'), clientId: 'd2', will: { topic: 'root/w', payload: 'x' } });
    await dev.subscribeAsync('$chronos/result/1', { qos: 1 });
    await dev.publishAsync('$chronos/sql/1', 'SELECT * FROM readings', { qos: 1 });
    await sql(chronos, 'dev', 'DROP TABLE readings');
    await chronos.http('/metrics', { headers: basic('dev') });
    const address = 'address=127\\.0\\.0\\.1:\\d+';
    const reason = 'reason="no rule allows it" line=0 unlogged_before=0';
    const lines = [
        `operation=publish object=root/a user=dev role=device client=d1 ${address} ${reason}`,
        `operation=subscribe object=root/# user=dev role=device client=d1 ${address} ${reason}`,
        `operation=will object=root/w user=dev role=device client=d2 ${address} ${reason}`,
        `operation=sql object="SELECT \\* FROM readings" user=dev role=device client=d1 ${address} reason=".*readings.*"`,
        `operation=sql object="DROP TABLE readings" user=dev role=device client="" ${address} reason=".*"`,
        `operation=http object=/metrics user=dev role=device client="" ${address}`,
    ];
    for (const line of lines)
        await until(line, () => new RegExp(`notice audit: denied ${line}`).test(chronos.stderr));
    assert.doesNotMatch(chronos.stderr, /pw-/, 'no secret in it');
    // A rule that denies is named by its line.
    writeFileSync(chronos.file('acl'), 'user dev\ntopic readwrite dev/#\ntopic deny dev/no\n');
    await chronos.reload();
    await chronos.publish(dev, 'dev/no', '1');
    await until('its line', () => /object=dev\/no .*reason="a rule denies it" line=3/.test(chronos.stderr));
});

test('a flood of denials is a few lines and a count; logins and denials are counted in /metrics', async () => {
    const chronos = await node();
    const dev = await chronos.client(as('dev'));
    for (let i = 0; i < 3; i++) assert.equal(await login(chronos, { username: 'dev', password: 'wrong' }), 0x86);
    await Promise.all(Array.from({ length: 300 }, () => chronos.publish(dev, 'root/a', '1')));
    const metrics = async () => Object.fromEntries((await chronos.http('/metrics', { headers: basic('root') })).text.split('\n')
        .map((line) => /^chronos_((?:logins|denials)\w*) (\d+)$/.exec(line)).filter(Boolean).map((m) => [m[1], Number(m[2])]));
    const counted = await metrics();
    assert.equal(counted.denials_total, 300);
    assert.equal(counted.logins_failed_total, 3);
    assert.ok(counted.logins_total >= 2, 'dev and root');
    assert.equal(counted.logins_backoff_total, 0);
    assert.equal(counted.logins_waiting, 0);
    const written = () => chronos.stderr.match(/audit: denied/g)?.length ?? 0;
    await until('the lines', () => written() === 300 - counted.denials_unlogged_total);
    assert.ok(counted.denials_unlogged_total > 0);
    // The next line tells how many have none.
    await until('a line that says so', async () => {
        await chronos.publish(dev, 'root/b', '1');
        const told = [...chronos.stderr.matchAll(/unlogged_before=(\d+)/g)].reduce((sum, m) => sum + Number(m[1]), 0);
        const now = await metrics();
        return told > 0 && told <= now.denials_unlogged_total;
    });
});

// ---- Guessing ----------------------------------------------------------------------------------

/** CONNACK's reason code for a login from one of our many addresses. */
function loginFrom(chronos, localAddress, username, password) {
    return new Promise((resolve, reject) => {
        const socket = net.connect({ port: chronos.port, host: '127.0.0.1', localAddress });
        cleanup(() => socket.destroy());
        const parser = mqttPacket.parser({ protocolVersion: 5 });
        parser.on('packet', (packet) => { socket.destroy(); resolve(packet.reasonCode); });
        socket.on('data', (bytes) => parser.parse(bytes));
        socket.on('error', reject);
        socket.write(mqttPacket.generate({ cmd: 'connect', protocolId: 'MQTT', protocolVersion: 5, clean: true, clientId: '',
            username, password: Buffer.from(password) }, { protocolVersion: 5 }));
    });
}

test('who guesses has to wait: the address, and the name for a while; others are not disturbed', async () => {
    const chronos = await node('login_backoff 60');
    const guess = (address, name) => loginFrom(chronos, address, name, 'wrong');
    // One address tries many names: the address waits, whatever name it tries, the names do not.
    const many = [];
    for (let i = 0; i < 30; i++) many.push(await guess('127.0.0.2', `name${i}`));
    assert.deepEqual(many.slice(0, 10), Array(10).fill(0x86));
    assert.equal(many.at(-1), 0x9f);
    assert.equal(await loginFrom(chronos, '127.0.0.2', 'root', 'pw-root'), 0x9f, 'not even looked at');
    assert.equal(await loginFrom(chronos, '127.0.0.3', 'root', 'pw-root'), 0);
    assert.equal(await loginFrom(chronos, '127.0.0.3', 'name1', 'wrong'), 0x86);
    // Many addresses try one name: the name waits, wherever it comes from, and only that one.
    const one = [];
    for (let i = 0; i < 30; i++) one.push(await guess(`127.0.1.${i + 1}`, 'dev'));
    assert.deepEqual(one.slice(0, 10), Array(10).fill(0x86));
    assert.ok(one.includes(0x9f));
    assert.equal(await loginFrom(chronos, '127.0.0.3', 'root', 'pw-root'), 0);
    // Its own user gets in again: nobody is locked out for long.
    await until('the name is looked at again', async () => (await loginFrom(chronos, '127.0.0.4', 'dev', 'pw-dev')) === 0);
    // And that has forgiven it.
    assert.equal(await guess('127.0.0.5', 'dev'), 0x86);
    assert.equal(await loginFrom(chronos, '127.0.0.4', 'dev', 'pw-dev'), 0);
    const metrics = (await chronos.http('/metrics', { headers: basic('root') })).text;
    assert.ok(Number(/^chronos_logins_backoff_total (\d+)$/m.exec(metrics)[1]) > 0);
});
