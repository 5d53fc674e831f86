// What clients may choose themselves (client id, will, the page they come from), and what becomes of it
// when rights change.
import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import mqtt from 'mqtt';
import { BIN, Chronos, run, tempDir } from './lib/chronos.mjs';
import { cleanup, test, until } from './lib/harness.mjs';
import { RawClient, UPGRADE } from './lib/websocket.mjs';

const SECRET = 'a secret of at least thirty-two bytes.';
const b64 = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
function token(claims) {
    const head = `${b64({ alg: 'HS256', typ: 'JWT' })}.${b64({ exp: Math.floor(Date.now() / 1000) + 3600, ...claims })}`;
    return `${head}.${createHmac('sha256', SECRET).update(head).digest('base64url')}`;
}

async function node(aclText, extra = []) {
    const dir = tempDir();
    const passwd = join(dir, 'passwd');
    for (const user of ['watch', 'dev', 'late'])
        assert.equal((await run(BIN, ['passwd', ...(user === 'watch' ? ['-c'] : []), '-b', passwd, user, `pw-${user}`])).code, 0);
    writeFileSync(join(dir, 'acl'), aclText);
    writeFileSync(join(dir, 'secret'), SECRET + '\n');
    writeFileSync(join(dir, 'conf'), [`password_file ${passwd}`, `acl_file ${join(dir, 'acl')}`,
        `jwt_secret_file ${join(dir, 'secret')}`, ...extra].join('\n') + '\n');
    const chronos = new Chronos(join(dir, 'data'), ['--config', join(dir, 'conf')]);
    await chronos.start();
    chronos.reload = async ({ aclText: text, without } = {}) => {
        if (text) writeFileSync(join(dir, 'acl'), text);
        if (without) assert.equal((await run(BIN, ['passwd', '-D', passwd, without])).code, 0);
        const lines = () => chronos.stderr.match(/settings (read again|refused)/g)?.length ?? 0;
        const before = lines();
        chronos.signal('SIGHUP');
        await until('the reload', () => lines() > before);
    };
    return chronos;
}
const as = (user) => ({ username: user, password: `pw-${user}` });

/** The reason code of CONNACK: 0 when let in. */
const login = (url, options) => new Promise((resolve) => {
    const client = mqtt.connect(url, { protocolVersion: 5, reconnectPeriod: 0, ...options });
    cleanup(() => client.endAsync(true).catch(() => {}));
    client.on('connect', () => { client.end(true); resolve(0); });
    client.on('error', (err) => { client.end(true); resolve(err.code ?? -1); });
});
const subscribeCode = (client, topic) => new Promise((resolve) => client.subscribe(topic, { qos: 1 }, (err, granted, packet) =>
    resolve((packet?.granted ?? granted?.map((g) => g.qos) ?? [])[0] ?? err?.code ?? -1)));

test('a client id or a sub of + or # does not open the topics of others', async () => {
    const chronos = await node('user watch\ntopic readwrite #\n');
    for (const name of ['+', '#']) {
        const byId = await chronos.client({ clientId: name, username: 'jwt',
            password: token({ sub: 'esp', publish: ['dev/%c/data', 'ids/%c'], subscribe: ['dev/%c/#', 'ids/%c', 'all/#'] }) });
        for (const topic of ['dev/other/data', 'ids/other'])
            assert.equal((await chronos.publish(byId, topic, 'x')).code, 0x87, `${name} ${topic}`);
        for (const filter of ['dev/other/#', 'dev/+/#', 'dev/#', 'ids/#', '#/'].slice(0, 4))
            assert.equal(await subscribeCode(byId, filter), 0x87, `${name} ${filter}`);
        assert.equal(await subscribeCode(byId, 'all/x'), 1);
        const bySub = await chronos.client({ clientId: `c${name === '+'}`, username: 'jwt',
            password: token({ sub: name, publish: ['users/%u'], subscribe: ['users/%u'] }) });
        assert.equal((await chronos.publish(bySub, 'users/other', 'x')).code, 0x87);
        assert.equal(await subscribeCode(bySub, 'users/other'), 0x87);
    }
    const good = await chronos.client({ clientId: 'c1', username: 'jwt', password: token({ sub: 'esp', publish: ['dev/%c/data'] }) });
    assert.equal((await chronos.publish(good, 'dev/c1/data', 'x')).code, 0);
});

test('a will is judged under the client id that the server assigns', async () => {
    const chronos = await node('user watch\ntopic readwrite #\npattern write own/%c/gone\n', ['auto_id_prefix auto-']);
    const will = (topic, more) => login(chronos.url(), { ...as('dev'), will: { topic, payload: 'x' }, ...more });
    assert.equal(await will('own//gone', { clientId: '', clean: true }), 0x87);
    assert.equal(await will('own/d1/gone', { clientId: 'd1' }), 0);
    assert.equal(await will('own/d2/gone', { clientId: 'd1' }), 0x87);
});

/** A client with a will, gone without DISCONNECT. */
async function lost(chronos, user, topic, { delay = 0, expiry = 0, disconnects = true } = {}) {
    const client = await chronos.client({ ...as(user), clientId: `lost-${topic.replaceAll('/', '-')}`,
        properties: { sessionExpiryInterval: expiry },
        will: { topic, payload: topic, qos: 1, properties: { willDelayInterval: delay } } });
    client.on('error', () => {});
    if (disconnects) {
        client.stream.destroy();
        await new Promise((resolve) => client.once('close', resolve));
    }
    return client;
}

const RIGHTS = 'user watch\ntopic readwrite #\nuser dev\ntopic readwrite dev/#\nuser late\ntopic readwrite late/#\n';

test('a will is not published for a user who is gone or may not any more', async () => {
    const chronos = await node(RIGHTS);
    const seen = [];
    const watch = await chronos.client({ ...as('watch'), onMessage: (topic) => seen.push(topic) });
    await watch.subscribeAsync('#', { qos: 1 });
    // Their delay runs while the rights change; of each, one in memory and one in the log.
    await lost(chronos, 'dev', 'dev/forbidden/delayed', { delay: 2, expiry: 600 });
    await lost(chronos, 'dev', 'dev/kept/delayed', { delay: 2, expiry: 600 });
    await lost(chronos, 'late', 'late/delayed', { delay: 2, expiry: 600 });
    // Still connected when they are.
    const open = [];
    for (const expiry of [0, 600]) {
        open.push(await lost(chronos, 'late', `late/connected/${expiry}`, { expiry, disconnects: false }));
        open.push(await lost(chronos, 'dev', `dev/connected/${expiry}`, { expiry, disconnects: false }));
        open.push(await lost(chronos, 'dev', `dev/forbidden/${expiry}`, { expiry, disconnects: false }));
    }
    await chronos.reload({ aclText: RIGHTS.replace('user late', 'topic deny dev/forbidden/#\nuser late'), without: 'late' });
    await until('the removed user is disconnected', () => open.every((c, i) => i % 3 || !c.connected));
    for (const client of open) client.stream.destroy();
    await until('the wills that stay', () => ['dev/connected/0', 'dev/connected/600', 'dev/kept/delayed'].every((t) => seen.includes(t)));
    // One more that is due after all of them.
    await lost(chronos, 'dev', 'dev/last', { delay: 1, expiry: 600 });
    await until('the last', () => seen.includes('dev/last'));
    assert.deepEqual(seen.filter((t) => t.startsWith('late/') || t.startsWith('dev/forbidden')), []);
    // Nor do they come when the node does.
    await chronos.restart();
    const again = [];
    const next = await chronos.client({ ...as('watch'), onMessage: (topic) => again.push(topic) });
    await next.subscribeAsync('#', { qos: 1 });
    await lost(chronos, 'dev', 'dev/after', { delay: 1, expiry: 600 });
    await until('the will after', () => again.includes('dev/after'));
    assert.deepEqual(again, ['dev/after']);
});

test('a page of another origin does not get to a node that asks for no password', async () => {
    const dir = tempDir();
    assert.equal((await run(BIN, ['passwd', '-c', '-b', join(dir, 'passwd'), 'u', 'pw'])).code, 0);
    const start = async (lines) => {
        const conf = join(tempDir(), 'conf');
        writeFileSync(conf, [...lines].join('\n') + '\n');
        const chronos = new Chronos(join(tempDir(), 'data'), ['--config', conf]);
        await chronos.start();
        return chronos.listeners.filter((l) => l.kind === 'ws').map((l) => l.port);
    };
    const answer = async (port, origin, host = `127.0.0.1:${port}`) => {
        const c = new RawClient(port);
        c.write(UPGRADE.replace('Host: farm', `Host: ${host}${origin ? `\r\nOrigin: ${origin}` : ''}`));
        return c.until('the answer', (data) => /^HTTP\/1\.1 (\d+) /.exec(data.toString('latin1'))?.[1]);
    };
    const ws = ['listener 0 127.0.0.1', 'protocol websockets'];
    const [open, any] = await start(['listener 0 127.0.0.1', ...ws, ...ws, 'websockets_origin *']);
    assert.equal(await answer(open), '101', 'no browser');
    assert.equal(await answer(open, 'http://127.0.0.1:3000'), '101');
    assert.equal(await answer(open, 'http://localhost', `localhost:${open}`), '101');
    assert.equal(await answer(open, 'https://evil.example'), '403');
    assert.equal(await answer(open, 'http://evil.example', `evil.example:${open}`), '403', 'a name that was made to point here');
    assert.equal(await answer(open, 'null'), '403');
    assert.equal(await answer(any, 'https://evil.example'), '101');
    const [asks, anonymous] = await start([`password_file ${join(dir, 'passwd')}`, 'listener 0 127.0.0.1', ...ws, ...ws, 'listener_allow_anonymous true']);
    assert.equal(await answer(asks, 'https://dashboard.example'), '101', 'the page has to know a password');
    assert.equal(await answer(anonymous, 'https://dashboard.example'), '403');
});
