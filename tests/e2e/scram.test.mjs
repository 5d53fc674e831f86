// Enhanced authentication (MQTT 5.0, 4.12) with SCRAM-SHA-256: exchanges that come to their end. What is refused before a
// proof is needed stands in mqtt/auth.txt.
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import mqtt from 'mqtt';
import { BIN, Chronos, run, tempDir } from './lib/chronos.mjs';
import { cleanup, test, until } from './lib/harness.mjs';
import { handleAuth, RawClient, Scram, scramOptions } from './lib/scram.mjs';

/** Users root (admin), dev and "a,b=c" by SCRAM, old by PBKDF2 alone. */
async function node(...flags) {
    const dir = tempDir();
    const file = join(dir, 'passwd');
    const make = async (...args) => assert.equal((await run(BIN, ['passwd', ...args])).code, 0);
    await make('-c', '-b', file, 'old', 'pw-old');
    for (const user of ['root', 'dev', 'a,b=c']) await make('-H', 'scram', '-b', file, user, `pw-${user}`);
    writeFileSync(join(dir, 'acl'), 'user dev\ntopic readwrite dev/#\n');
    const chronos = new Chronos(join(dir, 'data'), ['--password-file', file, '--acl-file', join(dir, 'acl'),
        '--user-role', 'root admin', ...flags]);
    chronos.passwd = file;
    return chronos.start();
}

/** Logs in with Node's client: {code, packet, scram}. */
function login(chronos, user, password, more = {}) {
    const scram = new Scram(user, password);
    return new Promise((resolve) => {
        const client = mqtt.connect(chronos.url(), { protocolVersion: 5, reconnectPeriod: 0, ...more, ...scramOptions(scram) });
        client.handleAuth = handleAuth(scram);
        cleanup(() => client.endAsync(true).catch(() => {}));
        client.on('connect', (packet) => resolve({ code: 0, packet, scram, client }));
        client.on('error', (err) => resolve({ code: err.code ?? -1, scram }));
    });
}

test("SCRAM-SHA-256 with Node's client", async () => {
    const chronos = await node('--login-backoff', '0');
    for (const user of ['root', 'dev', 'a,b=c']) {
        const { code, packet, scram } = await login(chronos, user, `pw-${user}`);
        assert.equal(code, 0, user);
        assert.equal(packet.properties.authenticationMethod, 'SCRAM-SHA-256');
        assert.ok(scram.verifies(packet.properties.authenticationData), 'the server proves that it has the keys');
        assert.equal((await login(chronos, user, 'wrong')).code, 0x87, `${user}, wrong password`);
    }
    assert.equal((await login(chronos, 'nobody', 'x')).code, 0x87);
    assert.equal((await login(chronos, 'old', 'pw-old')).code, 0x87);
    await until('the lines of the log', () => [/login refused.*user=dev.*wrong password/, /login refused.*user=nobody.*no such user/,
        /login refused.*user=old.*has no SCRAM-SHA-256 entry/].every((line) => line.test(chronos.stderr)));
    assert.doesNotMatch(chronos.stderr, /pw-|c=biws/, 'no secret in the log');
    // The same entries serve a plain password.
    await chronos.client({ username: 'dev', password: 'pw-dev' });
});

test('a user by SCRAM has its rights, and no others', async () => {
    const chronos = await node();
    const { client } = await login(chronos, 'dev', 'pw-dev');
    assert.equal((await chronos.publish(client, 'dev/a', '1')).code, 0);
    assert.equal((await chronos.publish(client, 'root/a', '1')).code, 0x87);
    const { client: root } = await login(chronos, 'root', 'pw-root');
    assert.equal((await chronos.publish(root, 'root/a', '1')).code, 0);
    await until('the audit line', () => /denied operation=publish object=root\/a user=dev role=device/.test(chronos.stderr));
});

test('the name in the exchange counts, not User Name', async () => {
    const chronos = await node();
    const { client } = await login(chronos, 'dev', 'pw-dev', { username: 'root', password: 'whatever' });
    assert.equal((await chronos.publish(client, 'root/a', '1')).code, 0x87);
});

/** What the server sends as salt and iterations for a name. */
async function challenge(chronos, user) {
    const client = new RawClient(chronos.port);
    const scram = new Scram(user, 'x');
    client.begin(scram, 'ask');
    scram.final((await client.next()).properties.authenticationData);
    client.socket.destroy();
    return `${scram.salt} ${scram.iterations}`;
}

test('a name that nobody has is not told from one that somebody has', async () => {
    const chronos = await node();
    const ask = async () => Promise.all(['dev', 'root', 'old', 'nobody', 'noone'].map((name) => challenge(chronos, name)));
    const before = await ask();
    assert.equal(new Set(before).size, 5, 'each name has a salt of its own');
    for (const text of before) assert.match(text, /^[A-Za-z0-9+/]{16} 4096$/);
    assert.deepEqual(await ask(), before, 'whenever asked');
    await chronos.restart();
    assert.deepEqual(await ask(), before, 'over a restart');
    assert.equal((await run(BIN, ['passwd', '-H', 'scram', '-b', chronos.passwd, 'dev', 'another'])).code, 0);
    await chronos.restart();
    const after = await ask();
    assert.notEqual(after[0], before[0], 'a new password has a new salt');
    assert.deepEqual(after.slice(1), before.slice(1), "and others' stay");
});

test('a session is resumed by SCRAM, on whichever loop it lives', async () => {
    const chronos = await node('--loops', '3');
    const properties = { sessionExpiryInterval: 300 };
    for (let i = 0; i < 12; i++) {
        const client = new RawClient(chronos.port);
        const scram = new Scram('dev', 'pw-dev');
        const connack = await client.connect(scram, 'one', { clean: false, properties });
        assert.equal(connack.reasonCode, 0);
        assert.equal(connack.sessionPresent, i > 0);
        assert.ok(scram.verifies(connack.properties.authenticationData));
        if (i % 2) client.socket.destroy(); // else it is taken over
    }
});

test('authenticating again', async () => {
    const chronos = await node('--login-backoff', '0');
    const client = new RawClient(chronos.port);
    assert.equal((await client.connect(new Scram('dev', 'pw-dev'), 'again')).reasonCode, 0);
    for (let i = 0; i < 3; i++) {
        const scram = new Scram('dev', 'pw-dev');
        const answer = await client.again(scram);
        assert.equal(answer.cmd, 'auth');
        assert.equal(answer.reasonCode, 0);
        assert.equal(answer.properties.authenticationMethod, 'SCRAM-SHA-256');
        assert.ok(scram.verifies(answer.properties.authenticationData));
    }
    // Other packets go on meanwhile.
    const scram = new Scram('dev', 'pw-dev');
    client.auth(0x19, scram.first());
    client.send({ cmd: 'publish', topic: 'dev/x', payload: 'x', qos: 1, messageId: 7 });
    client.send({ cmd: 'pingreq' });
    const got = [await client.next(), await client.next(), await client.next()];
    assert.deepEqual(got.map((p) => p.cmd).sort(), ['auth', 'pingresp', 'puback']);
    client.auth(0x18, scram.final(got.find((p) => p.cmd === 'auth').properties.authenticationData));
    const last = await client.next();
    assert.equal(last.cmd, 'auth');
    assert.equal(last.reasonCode, 0);
    // Without data it is asked for.
    const asked = new Scram('dev', 'pw-dev');
    client.auth(0x19, undefined);
    const empty = await client.next();
    assert.equal(empty.reasonCode, 0x18);
    assert.equal(empty.properties.authenticationData, undefined);
    client.auth(0x18, asked.first());
    assert.equal((await client.finish(asked)).reasonCode, 0);
});

/** A test: what `act` does is answered by a DISCONNECT with this reason code, and the end of the connection. */
function ends(code, act) {
    return async () => {
        const chronos = await node();
        const client = new RawClient(chronos.port);
        assert.equal((await client.connect(new Scram('dev', 'pw-dev'), 'end')).reasonCode, 0);
        const packet = await act(client);
        assert.equal(packet.cmd, 'disconnect');
        assert.equal(packet.reasonCode, code);
        assert.equal(await client.next(), null, 'closed');
    };
}
test('authenticating again with a wrong password ends the connection', ends(0x87, (client) => client.again(new Scram('dev', 'wrong'))));
test('authenticating again as another user ends the connection', ends(0x87, (client) => client.again(new Scram('root', 'pw-root'))));
test('authenticating again as nobody ends the connection', ends(0x87, (client) => client.again(new Scram('nobody', 'x'))));
test('authenticating again with nonsense ends the connection', ends(0x87, (client) => { client.auth(0x19, Buffer.from('hello')); return client.next(); }));
test('authenticating again by another method ends the connection', ends(0x82, (client) => { client.auth(0x19, Buffer.from('n,,n=dev,r=x'), 'SCRAM-SHA-1'); return client.next(); }));
test('AUTH 0x18 without an exchange ends the connection', ends(0x82, (client) => { client.auth(0x18, Buffer.from('n,,n=dev,r=x')); return client.next(); }));
test('AUTH 0x19 in an exchange ends the connection', ends(0x82, async (client) => {
    client.auth(0x19, new Scram('dev', 'x').first());
    await client.next();
    client.auth(0x19, new Scram('dev', 'x').first());
    return client.next();
}));
test('the proof a second time ends the connection', ends(0x82, async (client) => {
    const scram = new Scram('dev', 'pw-dev');
    client.auth(0x19, scram.first());
    const final = scram.final((await client.next()).properties.authenticationData);
    client.auth(0x18, final);
    assert.equal((await client.next()).reasonCode, 0);
    client.auth(0x18, final);
    return client.next();
}));

test('AUTH of a client that logged in by password', async () => {
    const chronos = await node();
    const client = new RawClient(chronos.port);
    client.send({ cmd: 'connect', protocolId: 'MQTT', protocolVersion: 5, clean: true, clientId: 'p', username: 'dev', password: Buffer.from('pw-dev') });
    const connack = await client.next();
    assert.equal(connack.reasonCode, 0);
    assert.equal(connack.properties.authenticationMethod, undefined);
    client.auth(0x19, new Scram('dev', 'pw-dev').first());
    assert.equal((await client.next()).reasonCode, 0x82);
});

test('exchanges begun at once win nothing: failures are counted', async () => {
    const chronos = await node();
    const clients = await Promise.all(Array.from({ length: 30 }, async (_, i) => {
        const client = new RawClient(chronos.port);
        const scram = new Scram('dev', `guess ${i}`);
        client.begin(scram, `guess${i}`);
        return { client, scram, packet: await client.next() };
    }));
    const codes = [];
    for (const { client, scram, packet } of clients) {
        client.auth(0x18, scram.final(packet.properties.authenticationData));
        codes.push((await client.next()).reasonCode);
    }
    assert.deepEqual(codes.slice(0, 10), Array(10).fill(0x87));
    assert.ok(codes.slice(11).includes(0x9f), String(codes));
    await until('a fresh one is not looked at, either', async () => (await login(chronos, 'dev', 'guess')).code === 0x9f);
});

test('a CONNECT that is never proved times out', async () => {
    const chronos = await node('--connect-timeout', '1');
    const client = new RawClient(chronos.port);
    client.begin(new Scram('dev', 'x'), 'slow');
    assert.equal((await client.next()).cmd, 'auth');
    assert.equal(await client.next(), null, 'closed');
});

test('clients that only begin to authenticate do not take all memory', async () => {
    const chronos = await node('--connect-timeout', '60');
    const large = Object.fromEntries(Array.from({ length: 4 }, (_, i) => [`k${i}`, 'x'.repeat(62000)]));
    const begin = (n, userProperties) => Promise.all(Array.from({ length: n }, async () => {
        const client = new RawClient(chronos.port);
        client.begin(new Scram('dev', 'x'), 'same', { properties: { userProperties } });
        return { client, packet: await client.next() };
    }));
    const codes = [], clients = [];
    for (let i = 0; i < 11; i++) // 275 of a quarter of a megabyte, and the limit is 64
        for (const { client, packet } of await begin(25, large)) {
            clients.push(client);
            codes.push(packet.cmd === 'auth' ? 'auth' : packet.reasonCode);
        }
    const taken = codes.filter((code) => code === 'auth').length;
    assert.ok(taken > 200 && taken < 270, String(taken));
    assert.deepEqual([...new Set(codes)], ['auth', 0x89]);
    // Others are not disturbed, and room comes back.
    await chronos.client({ username: 'root', password: 'pw-root' });
    for (const client of clients) client.socket.destroy();
    await until('room', async () => (await login(chronos, 'dev', 'pw-dev')).code === 0);
});

test('chronos passwd -H scram refuses what SASLprep would change', async () => {
    const file = join(tempDir(), 'p');
    const make = (password) => run(BIN, ['passwd', '-c', '-H', 'scram', '-b', file, 'u', password]);
    for (const password of ['\u00aa', 'a\u0308', 'tab\there', '\u2168']) {
        const r = await make(password);
        assert.equal(r.code, 1, password);
        assert.match(r.stderr, /not a password for SCRAM: it has a/);
    }
    assert.equal((await make('p\u00e4ss')).code, 0);
    assert.match(readFileSync(file, 'utf8'), /^u:SCRAM-SHA-256\$4096:[A-Za-z0-9+/]{16}\$[A-Za-z0-9+/]{43}=:[A-Za-z0-9+/]{43}=\n$/);
});
