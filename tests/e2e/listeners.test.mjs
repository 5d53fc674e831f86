// Listeners: TLS, WebSocket, WSS, Unix sockets, PROXY headers; each with clients made elsewhere, and with
// broken, slow and hostile ones.
import { copyFileSync, existsSync, readFileSync, statSync, unlinkSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { join } from 'node:path';
import tls from 'node:tls';
import assert from 'node:assert/strict';
import mqtt from 'mqtt';
import { cleanup, test, until } from './lib/harness.mjs';
import { BIN, Chronos, run, tempDir } from './lib/chronos.mjs';
import { Authority } from './lib/certs.mjs';
import { RawClient, UPGRADE, frame } from './lib/websocket.mjs';

/** A node whose config file holds the lines. */
async function startWith(lines, args = []) {
    const dir = tempDir();
    const file = join(dir, 'chronos.conf');
    writeFileSync(file, lines.join('\n') + '\n');
    const node = new Chronos(join(dir, 'data'), ['--config', file, ...args]);
    await node.start();
    node.dir = dir;
    node.on = (kind) => node.listeners.find((l) => l.kind === kind);
    return node;
}

const client = async (url, options = {}) => {
    const c = await mqtt.connectAsync(url, { reconnectPeriod: 0, connectTimeout: 20000, ...options });
    c.on('error', () => {});
    cleanup(() => c.endAsync(true).catch(() => {}));
    return c;
};

/** Publishes through `from`, receives through `to`; payloads of many sizes, both ways. */
async function exchange(from, to, topic, sizes) {
    const got = [];
    to.on('message', (t, payload) => t === topic && got.push(payload));
    await to.subscribeAsync(topic, { qos: 1 });
    const sent = sizes.map((n, i) => Buffer.alloc(n, i + 1));
    await Promise.all(sent.map((payload) => from.publishAsync(topic, payload, { qos: 1 })));
    await until('all messages', () => got.length >= sent.length);
    sent.forEach((payload, i) => assert.ok(payload.equals(got[i]), `message ${i} of ${payload.length} bytes`));
}
const SIZES = [0, 1, 100, 125, 126, 127, 1000, 16383, 16384, 32768, 65535, 65536, 300000, 3000000, 5];

const CONNECT = (id) => {
    const body = Buffer.concat([Buffer.from([0, 4]), Buffer.from('MQTT'), Buffer.from([4, 2, 0, 60, 0, id.length]), Buffer.from(id)]);
    return Buffer.concat([Buffer.from([0x10, body.length]), body]);
};
const CONNACK = Buffer.from([0x20, 2, 0, 0]);
const PINGREQ = Buffer.from([0xc0, 0]), PINGRESP = Buffer.from([0xd0, 0]);

const tlsError = (port, options) => new Promise((resolve) => {
    // With TLS 1.3 the server's refusal of a certificate comes after the client believes it is connected.
    const socket = tls.connect({ port, host: '127.0.0.1', ...options });
    socket.on('secureConnect', () => socket.write(CONNECT('x')));
    socket.on('data', () => { resolve('connected'); socket.destroy(); });
    socket.on('error', (err) => resolve(err.code ?? err.message));
    socket.on('close', () => resolve('closed'));
});

test('TLS: mosquitto_pub and Node, large messages both ways, who is not who he says', async () => {
    const ca = new Authority(join(tempDir(), 'ca'));
    const own = ca.issue('localhost', { san: 'DNS:localhost,IP:127.0.0.1' });
    const node = await startWith(['listener 0 127.0.0.1', `certfile ${own.crt}`, `keyfile ${own.key}`,
        'listener 0 127.0.0.1', `certfile ${own.crt}`, `keyfile ${own.key}`, 'tls_version tlsv1.3']);
    const { port } = node.on('tls');
    const trusted = { ca: readFileSync(ca.crt) };

    const plain = await node.client();
    const secure = await client(`mqtts://127.0.0.1:${port}`, trusted);
    await exchange(secure, plain, 'tls/up', SIZES);
    await exchange(plain, secure, 'tls/down', SIZES);
    const old = await client(`mqtts://127.0.0.1:${port}`, { ...trusted, maxVersion: 'TLSv1.2' });
    await exchange(old, plain, 'tls/12', [10, 100000]);

    const pub = await run('mosquitto_pub', ['-h', 'localhost', '-p', port, '--cafile', ca.crt, '-q', '1', '-t', 'sensors/d1/t', '-m', '20.5']);
    assert.equal(pub.code, 0, pub.stderr);
    assert.deepEqual(await node.rows("SELECT value FROM readings WHERE device_id = 'd1'"), [[20.5]]);

    const cli = await run(BIN, ['client', '-h', 'localhost', '-p', port, '--cafile', ca.crt, '--format', 'csv', '-e', "SELECT value FROM readings WHERE device_id = 'd1'"]);
    assert.equal(cli.stdout, 'value\r\n20.5\r\n', cli.stderr);

    const stranger = new Authority(join(tempDir(), 'ca'), 'Other CA');
    const wrong = await run('mosquitto_pub', ['-h', 'localhost', '-p', port, '--cafile', stranger.crt, '-t', 'a', '-m', 'x']);
    assert.notEqual(wrong.code, 0);
    const below = node.listeners.filter((l) => l.kind === 'tls')[1].port;
    assert.notEqual(await tlsError(below, { ...trusted, maxVersion: 'TLSv1.2' }), 'connected');
    assert.equal(await tlsError(below, trusted), 'connected');
    assert.notEqual(await tlsError(port, { ...trusted, maxVersion: 'TLSv1.1', minVersion: 'TLSv1' }), 'connected');

    // A plain client at the TLS port, and noise, are closed; others do not notice.
    const lost = new RawClient(port);
    lost.write(CONNECT('lost'));
    await lost.end();
    await until('its line', () => /TLS handshake failed/.test(node.stderr));
    await exchange(secure, plain, 'tls/after', [3]);

    // Resumed by its ticket.
    const session = await new Promise((resolve) => {
        const first = tls.connect({ port, host: '127.0.0.1', ...trusted }, () => first.write(CONNECT('ticket')));
        first.on('session', (s) => { resolve(s); first.end(); });
    });
    const again = await new Promise((resolve, reject) => {
        const second = tls.connect({ port, host: '127.0.0.1', ...trusted, session }, () => { resolve(second.isSessionReused()); second.end(); });
        second.on('error', reject);
    });
    assert.equal(again, true);

    const metrics = await node.metrics();
    const label = `{listener="127.0.0.1:${port}",kind="tls"}`;
    assert.ok(metrics[`chronos_listener_received_bytes_total${label}`] > 3000000);
    assert.ok(metrics[`chronos_listener_sent_bytes_total${label}`] > 3000000);
    assert.equal(metrics[`chronos_listener_connections${label}`] >= 2, true);
});

test('client certificates: required, expired, foreign, revoked; their names', async () => {
    const ca = new Authority(join(tempDir(), 'ca'));
    const own = ca.issue('localhost', { san: 'DNS:localhost,IP:127.0.0.1' });
    const good = ca.issue('good', { subject: '/O=Farm/OU=Barn 7/CN=sensor-ä' });
    const bad = ca.issue('bad');
    const nameless = ca.issue('nameless', { subject: '/O=Farm/CN=' + 'x' });
    const expired = ca.issue('expired', { start: '200101000000Z', end: '200102000000Z' });
    const foreign = new Authority(join(tempDir(), 'ca'), 'Other CA').issue('foreign');
    ca.revoke(bad);
    const crl = ca.crl();
    const common = [`certfile ${own.crt}`, `keyfile ${own.key}`, `cafile ${ca.crt}`, 'require_certificate true'];
    const node = await startWith(['listener 0 127.0.0.1', ...common, `crlfile ${crl}`, 'use_identity_as_username true',
        'listener 0 127.0.0.1', ...common, 'use_subject_as_username true']);
    const [byName, bySubject] = node.listeners.filter((l) => l.kind === 'tls');
    const as = ({ crt, key }) => ({ ca: readFileSync(ca.crt), cert: readFileSync(crt), key: readFileSync(key) });

    const c = await client(`mqtts://127.0.0.1:${byName.port}`, as(good));
    await exchange(c, await node.client(), 'cert/a', [1, 70000]);
    await until('its line', () => /client certificate.*user="?sensor-ä/.test(node.stderr));
    await client(`mqtts://127.0.0.1:${bySubject.port}`, as(good));
    await until('its line', () => /user="CN=sensor-ä,OU=Barn 7,O=Farm"/.test(node.stderr));
    await client(`mqtts://127.0.0.1:${bySubject.port}`, as(nameless));

    for (const [who, why] of [[bad, /certificate revoked/], [expired, /certificate has expired/], [foreign, /unable to get (local )?issuer|self.signed|unable to verify/]]) {
        const before = node.stderr.length;
        assert.notEqual(await tlsError(byName.port, as(who)), 'connected');
        await until('the reason', () => why.test(node.stderr.slice(before)));
    }
    const before = node.stderr.length;
    assert.notEqual(await tlsError(byName.port, { ca: readFileSync(ca.crt) }), 'connected');
    await until('the reason', () => /peer did not return a certificate/.test(node.stderr.slice(before)));
    const pub = await run('mosquitto_pub', ['-h', 'localhost', '-p', byName.port, '--cafile', ca.crt, '--cert', good.crt, '--key', good.key, '-t', 'a', '-m', 'x', '-q', '1']);
    assert.equal(pub.code, 0, pub.stderr);
    // The list read again: what it holds now counts for those that come, not for those that are here.
    ca.revoke(good);
    ca.crl();
    node.signal('SIGHUP');
    await until('the reload', () => /settings read again/.test(node.stderr));
    assert.notEqual(await tlsError(byName.port, as(good)), 'connected');
    await exchange(c, c, 'cert/b', [5]);
});

test('certificates that can not be used are named, with the line of their listener', async () => {
    const dir = tempDir();
    const ca = new Authority(join(dir, 'ca'));
    const own = ca.issue('own'), other = ca.issue('other');
    const file = join(dir, 'chronos.conf');
    const start = async (lines) => {
        writeFileSync(file, ['listener 0 127.0.0.1', ...lines, ''].join('\n'));
        const out = await run(BIN, ['single-node', '--data-dir', join(dir, 'data'), '--config', file, '--test-config']);
        assert.notEqual(out.code, 0);
        return out.stderr;
    };
    assert.match(await start([`certfile ${dir}/none.crt`, `keyfile ${own.key}`]), /chronos\.conf:1: .*certfile .*none\.crt: No such file/);
    assert.match(await start([`certfile ${own.crt}`, `keyfile ${dir}`]), /chronos\.conf:1: .*keyfile/);
    assert.match(await start([`certfile ${own.crt}`, `keyfile ${other.key}`]), /chronos\.conf:1: .*(is not the key of|key values mismatch)/);
    assert.match(await start([`certfile ${file}`, `keyfile ${own.key}`]), /chronos\.conf:1: .*certfile .*no start line/);
    assert.match(await start([`certfile ${own.crt}`, `keyfile ${own.key}`, `cafile ${file}`]), /cafile/);
    assert.match(await start([`certfile ${own.crt}`, `keyfile ${own.key}`, `cafile ${ca.crt}`, `crlfile ${ca.crt}`]), /crlfile/);
    assert.match(await start([`certfile ${own.crt}`, `keyfile ${own.key}`, 'ciphers NONSENSE']), /ciphers/);
    assert.match(await start([`certfile ${own.crt}`, `keyfile ${own.key}`, 'ciphers_tls1.3 NONSENSE']), /ciphers_tls1\.3/);
});

test('SIGHUP: new certificates for new connections; the old ones stay; a bad file changes nothing', async () => {
    const dir = tempDir();
    const ca = new Authority(join(dir, 'ca'));
    const first = ca.issue('first', { san: 'IP:127.0.0.1' }), second = ca.issue('second', { san: 'IP:127.0.0.1' });
    const crt = join(dir, 'own.crt'), key = join(dir, 'own.key');
    copyFileSync(first.crt, crt);
    copyFileSync(first.key, key);
    const node = await startWith(['listener 0 127.0.0.1', `certfile ${crt}`, `keyfile ${key}`]);
    const { port } = node.on('tls');
    const options = { ca: readFileSync(ca.crt) };
    const shown = () => new Promise((resolve, reject) => {
        const s = tls.connect({ port, host: '127.0.0.1', ...options }, () => { resolve(s.getPeerCertificate().subject.CN); s.destroy(); });
        s.on('error', reject);
    });
    const c = await client(`mqtts://127.0.0.1:${port}`, options);
    let closed = false;
    c.on('close', () => { closed = true; });
    assert.equal(await shown(), 'first');
    copyFileSync(second.crt, crt);
    node.signal('SIGHUP'); // the key does not fit yet
    await until('the refusal', () => /settings refused.*certificates: .*listener 127\.0\.0\.1/.test(node.stderr));
    assert.equal(await shown(), 'first');
    copyFileSync(second.key, key);
    node.signal('SIGHUP');
    await until('the reload', () => /settings read again/.test(node.stderr));
    assert.equal(await shown(), 'second');
    await exchange(c, c, 'reload', [1, 100000]);
    assert.equal(closed, false);
});

test('WebSocket and WSS: Node, large messages both ways, origin', async () => {
    const ca = new Authority(join(tempDir(), 'ca'));
    const own = ca.issue('own', { san: 'IP:127.0.0.1' });
    const node = await startWith(['listener 0 127.0.0.1', 'protocol websockets',
        'listener 0 127.0.0.1', 'protocol websockets', `certfile ${own.crt}`, `keyfile ${own.key}`,
        'listener 0 127.0.0.1', 'protocol websockets', 'websockets_origin https://farm.example']);
    const plain = await node.client();
    const ws = await client(`ws://127.0.0.1:${node.on('ws').port}/mqtt`, { protocolVersion: 5 });
    await exchange(ws, plain, 'ws/up', SIZES);
    await exchange(plain, ws, 'ws/down', SIZES);
    const wss = await client(`wss://127.0.0.1:${node.on('wss').port}`, { ca: readFileSync(ca.crt) });
    await exchange(wss, ws, 'wss/up', SIZES);
    await exchange(ws, wss, 'wss/down', SIZES);
    await ws.publishAsync('sensors/ws/t', '1.5', { qos: 1 });
    assert.deepEqual(await node.rows("SELECT value FROM readings WHERE device_id = 'ws'"), [[1.5]]);

    const { port } = node.listeners.filter((l) => l.kind === 'ws')[1];
    for (const request of [UPGRADE, UPGRADE.replace('Host', 'Origin: https://evil.example\r\nHost')]) {
        const c = new RawClient(port);
        c.write(request);
        assert.match((await c.end()).toString(), /^HTTP\/1\.1 403 /);
    }
    await client(`ws://127.0.0.1:${port}`, { wsOptions: { origin: 'https://farm.example' } });
});

test('WebSocket upgrades: byte by byte, broken, too large, without end', async () => {
    const node = await startWith(['connect_timeout 2', 'websockets_headers_size 1KiB', 'listener 0 127.0.0.1', 'protocol websockets']);
    const { port } = node.on('ws');
    // One byte at a time: request, frames, packets.
    const slow = new RawClient(port);
    const bytes = Buffer.concat([Buffer.from(UPGRADE), frame(CONNECT('slow')), frame(PINGREQ)]);
    for (const byte of bytes) {
        slow.write(Buffer.from([byte]));
        await new Promise((resolve) => setImmediate(resolve));
    }
    const answer = await slow.http();
    assert.match(answer, /^HTTP\/1\.1 101 /);
    assert.match(answer, /Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK\+xOo=\r\n/); // RFC 6455 1.3
    assert.match(answer, /Sec-WebSocket-Protocol: mqtt\r\n/);
    await slow.data(Buffer.concat([CONNACK, PINGRESP]));
    // All at once: request and frames in one segment.
    const fast = new RawClient(port);
    fast.write(bytes);
    await fast.http();
    await fast.data(Buffer.concat([CONNACK, PINGRESP]));

    const refused = async (request, status) => {
        const c = new RawClient(port);
        c.write(request);
        const all = (await c.end()).toString('latin1');
        assert.match(all, new RegExp(`^HTTP/1\\.1 ${status} `), JSON.stringify(request));
    };
    const without = (name) => UPGRADE.split('\r\n').filter((l) => !l.startsWith(name)).join('\r\n');
    await refused(CONNECT('lost'), 400);
    await refused(UPGRADE.replace('GET', 'POST'), 405);
    await refused(UPGRADE.replace('HTTP/1.1', 'HTTP/1.0'), 505);
    await refused(without('Host'), 400);
    await refused(without('Upgrade'), 426);
    await refused(without('Connection'), 426);
    await refused(without('Sec-WebSocket-Key'), 400);
    await refused(without('Sec-WebSocket-Version'), 426);
    await refused(without('Sec-WebSocket-Protocol'), 400);
    await refused(UPGRADE.replace('Version: 13', 'Version: 8'), 426);
    await refused(UPGRADE.replace('Protocol: mqtt', 'Protocol: chat, mqttt'), 400);
    await refused(UPGRADE.replace('dGhlIHNhbXBsZSBub25jZQ==', 'dGhl'), 400);
    await refused(UPGRADE.replace('Host: farm', 'Host: farm\r\nHost: farm'), 400);
    await refused(UPGRADE.replace('Host: farm', 'Host: farm\r\n folded: x'), 400);
    await refused(UPGRADE.replace('Host: farm', 'Host: farm\r\nContent-Length: 5'), 400);
    await refused(UPGRADE.replace('Host: farm', 'Host: farm\nX: y'), 400);
    await refused(UPGRADE.replace('Host: farm', 'Host: farm\r\nX: ' + 'y'.repeat(2000)), 431);
    await refused('GET / HTTP/1.1\r\n' + 'a'.repeat(5000), 431);
    // Slow-loris: a request that never ends is cut at connect_timeout, and so is one that never begins.
    const drip = new RawClient(port), silent = new RawClient(port);
    const timer = setInterval(() => drip.write('x'), 100);
    cleanup(() => clearInterval(timer));
    drip.write('GET /mqtt HTTP/1.1\r\nX: ');
    await drip.end();
    await silent.end();
    fast.write(frame(PINGREQ)); // who is connected stays (and has taken the session over)
    await fast.data(PINGRESP);
});

test('WebSocket frames: fragments, pings, close codes, and what breaks the rules', async () => {
    const node = await startWith(['listener 0 127.0.0.1', 'protocol websockets']);
    const { port } = node.on('ws');
    const open = async (id) => {
        const c = new RawClient(port);
        c.write(UPGRADE);
        await c.http();
        c.write(frame(CONNECT(id)));
        assert.ok((await c.frame()).payload.equals(CONNACK));
        return c;
    };
    const c = await open('frames');
    // A packet over several fragments with a ping between, several packets in one frame, empty frames.
    c.write(frame(PINGREQ.subarray(0, 1), { fin: false }));
    c.write(frame(Buffer.from('hello'), { opcode: 9 }));
    c.write(frame(Buffer.alloc(0), { opcode: 0, fin: false }));
    c.write(frame(PINGREQ.subarray(1), { opcode: 0 }));
    const seen = [await c.frame(), await c.frame()];
    const pong = seen.find((f) => f.opcode === 10);
    assert.equal(pong.payload.toString(), 'hello');
    assert.ok(seen.find((f) => f.opcode === 2).payload.equals(PINGRESP));
    c.write(frame(Buffer.concat([PINGREQ, PINGREQ])));
    c.write(frame(Buffer.alloc(0)));
    c.write(frame(Buffer.from('unasked'), { opcode: 10 }));
    let got = Buffer.alloc(0);
    while (got.length < 4) got = Buffer.concat([got, (await c.frame()).payload]);
    assert.ok(got.equals(Buffer.concat([PINGRESP, PINGRESP])));
    // Closed by the client with a code: the same back.
    const code = (n, reason = '') => { const b = Buffer.alloc(2); b.writeUInt16BE(n); return Buffer.concat([b, Buffer.from(reason)]); };
    c.write(frame(code(1001, 'going'), { opcode: 8 }));
    const close = await c.frame();
    assert.equal(close.opcode, 8);
    assert.equal(close.payload.readUInt16BE(0), 1001);
    await c.end();
    // DISCONNECT is answered by a close, 1000.
    const leaving = await open('leaving');
    leaving.write(frame(Buffer.from([0xe0, 0])));
    const bye = await leaving.frame();
    assert.equal(bye.opcode, 8);
    assert.equal(bye.payload.readUInt16BE(0), 1000);
    await leaving.end();

    const huge = Buffer.from([0x82, 0xff, 0, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4]); // 4 GiB
    const negative = Buffer.from([0x82, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]);
    for (const [bad, expected] of [
        [frame(PINGREQ, { opcode: 1 }), 1003], [frame(PINGREQ, { masked: false }), 1002], [frame(PINGREQ, { rsv: 4 }), 1002],
        [frame(PINGREQ, { opcode: 3 }), 1002], [frame(PINGREQ, { opcode: 11 }), 1002], [frame(PINGREQ, { opcode: 0 }), 1002],
        [frame(PINGREQ, { opcode: 9, fin: false }), 1002], [frame(Buffer.alloc(126), { opcode: 9 }), 1002],
        [Buffer.concat([frame(PINGREQ.subarray(0, 1), { fin: false }), frame(PINGREQ)]), 1002],
        [frame(PINGREQ, { length: 16 }), 1002], [frame(PINGREQ, { length: 64 }), 1002], [huge, 1009], [negative, 1002],
        [frame(Buffer.from([3]), { opcode: 8 }), 1002], [frame(code(1005), { opcode: 8 }), 1002], [frame(code(999), { opcode: 8 }), 1002],
        [frame(Buffer.concat([code(1000), Buffer.from([0xff, 0xfe])]), { opcode: 8 }), 1007],
    ]) {
        const rude = await open('rude');
        rude.write(bad);
        const last = await rude.frame();
        assert.equal(last.opcode, 8, bad.toString('hex').slice(0, 40));
        assert.equal(last.payload.readUInt16BE(0), expected, bad.toString('hex').slice(0, 40));
        await rude.end();
    }
    // A flood of pings by one who does not read is not answered without bound.
    const flood = await open('flood');
    flood.socket.pause();
    const ping = frame(Buffer.alloc(125, 7), { opcode: 9 });
    for (let i = 0; i < 200; i++) flood.write(Buffer.concat(Array(100).fill(ping)));
    const other = await open('other');
    other.write(frame(PINGREQ));
    assert.ok((await other.frame()).payload.equals(PINGRESP));
    const sys = await node.metrics();
    assert.ok(sys.process_resident_memory_bytes === undefined || sys.process_resident_memory_bytes < 1 << 30);
});

test('a session is taken over from any listener to any other, on whatever loop it lives', async () => {
    const ca = new Authority(join(tempDir(), 'ca'));
    const own = ca.issue('own', { san: 'IP:127.0.0.1' });
    const pair = [`certfile ${own.crt}`, `keyfile ${own.key}`];
    const node = await startWith(['loops 4', 'listener 0 127.0.0.1', ...pair, 'listener 0 127.0.0.1', 'protocol websockets',
        'listener 0 127.0.0.1', 'protocol websockets', ...pair]);
    const trusted = { ca: readFileSync(ca.crt) };
    const urls = [`mqtts://127.0.0.1:${node.on('tls').port}`, `ws://127.0.0.1:${node.on('ws').port}`,
        `wss://127.0.0.1:${node.on('wss').port}`, node.url()];
    // Others keep the loops unequal, so that the acceptor's choice changes.
    for (let i = 0; i < 5; i++) await client(urls[i % 4], trusted);
    const probe = await node.client();
    let last;
    for (let round = 0; round < 16; round++) {
        const next = await client(urls[(round * 3 + (round >> 2)) % 4], { ...trusted, clientId: 'wanderer', clean: round === 0 });
        if (last) await until('the take-over', () => !last.connected);
        await next.subscribeAsync('wander/#', { qos: 1 });
        await exchange(probe, next, `wander/${round}`, [1, 20000, 200000]);
        if (round % 3 === 2) await client(urls[round % 4], trusted);
        last = next;
    }
});

test('TLS handshakes that stop half way end at connect_timeout; others connect meanwhile', async () => {
    const ca = new Authority(join(tempDir(), 'ca'));
    const own = ca.issue('own', { san: 'IP:127.0.0.1' });
    const node = await startWith(['connect_timeout 2', 'listener 0 127.0.0.1', `certfile ${own.crt}`, `keyfile ${own.key}`]);
    const { port } = node.on('tls');
    const hello = await new Promise((resolve) => {
        const server = net.createServer((s) => s.once('data', (data) => { resolve(data); s.destroy(); server.close(); }));
        server.listen(0, '127.0.0.1', () => tls.connect({ port: server.address().port, host: '127.0.0.1' }).on('error', () => {}));
    });
    const halves = [];
    for (let i = 0; i < 50; i++) {
        const c = new RawClient(port);
        c.write(hello.subarray(0, Math.floor((i * hello.length) / 49)));
        halves.push(c);
    }
    const c = await client(`mqtts://127.0.0.1:${port}`, { ca: readFileSync(ca.crt) });
    await exchange(c, c, 'half', [1]);
    // Byte by byte it is as good as at once.
    const slow = new net.Socket();
    slow.connect(port, '127.0.0.1');
    const gate = new (await import('node:stream')).Duplex({
        read() {},
        write(chunk, _encoding, done) {
            (async () => {
                for (const byte of chunk) { slow.write(Buffer.from([byte])); await new Promise((r) => setImmediate(r)); }
            })().then(() => done(), done);
        },
    });
    slow.setNoDelay(true);
    slow.on('data', (data) => gate.push(data));
    slow.on('close', () => gate.push(null));
    cleanup(() => slow.destroy());
    const over = tls.connect({ socket: gate, ca: readFileSync(ca.crt), host: '127.0.0.1' }, () => over.write(CONNECT('dribble')));
    over.on('error', () => {});
    assert.ok((await new Promise((resolve) => over.once('data', resolve))).equals(CONNACK));
    for (const half of halves) await half.end();
    await exchange(c, c, 'half/after', [1]);
    const metrics = await node.metrics();
    await until('them to be gone', async () => (await node.metrics())[`chronos_listener_connections{listener="127.0.0.1:${port}",kind="tls"}`] <= 2);
    assert.ok(metrics);
});

test('Unix sockets: mosquitto_pub --unix, permissions, stale and foreign files', async () => {
    const dir = tempDir('u-');
    const path = join(dir, 's');
    const node = await startWith([`listener 0 ${path}`, 'socket_mode 0600']);
    assert.equal(node.on('unix').address, path);
    assert.equal(statSync(path).mode & 0o777, 0o600);
    const pub = await run('mosquitto_pub', ['--unix', path, '-t', 'sensors/u/t', '-m', '7', '-q', '1']);
    assert.equal(pub.code, 0, pub.stderr);
    assert.deepEqual(await node.rows("SELECT value FROM readings WHERE device_id = 'u'"), [[7]]);
    await until('its line', () => /address="?unix:uid=\d+,pid=\d+/.test(node.stderr));
    const second = await run(BIN, ['single-node', '--data-dir', join(dir, 'data2'), '--address', '127.0.0.1:0', '--listener', `0 ${path}`]);
    assert.notEqual(second.code, 0);
    assert.match(second.stderr, /another process listens on it/);
    await node.kill(); // leaves the file
    assert.ok(existsSync(path));
    await node.start();
    assert.equal((await run('mosquitto_pub', ['--unix', path, '-t', 'a', '-m', 'b', '-q', '1'])).code, 0);
    assert.equal((await node.stop()).code, 0);
    assert.equal(existsSync(path), false);
    writeFileSync(path, 'not a socket');
    const third = await run(BIN, ['single-node', '--data-dir', join(dir, 'data2'), '--address', '127.0.0.1:0', '--listener', `0 ${path}`]);
    assert.match(third.stderr, /not a socket/);
    assert.equal(readFileSync(path, 'utf8'), 'not a socket');
    unlinkSync(path);
});

test('PROXY headers: both versions, before TLS too; the address is in the log; what is none is closed', async () => {
    const ca = new Authority(join(tempDir(), 'ca'));
    const own = ca.issue('own', { san: 'IP:127.0.0.1' });
    const node = await startWith(['connect_timeout 2', 'listener 0 127.0.0.1', 'proxy_protocol true',
        'listener 0 127.0.0.1', 'enable_proxy_protocol true', `certfile ${own.crt}`, `keyfile ${own.key}`,
        'listener 0 127.0.0.1', 'proxy_protocol true', 'protocol websockets']);
    const plain = node.listeners.find((l) => l.kind === 'mqtt').port;
    const v2 = (family, body, command = 0x21) => {
        const head = Buffer.concat([Buffer.from('0d0a0d0a000d0a515549540a', 'hex'), Buffer.from([command, family, 0, 0]), body]);
        head.writeUInt16BE(body.length, 14);
        return head;
    };
    const four = Buffer.from([192, 0, 2, 7, 192, 0, 2, 1, 0xc0, 0x01, 7, 0x5b]);
    const six = Buffer.concat([Buffer.from('20010db8000000000000000000000009', 'hex'), Buffer.from('20010db8000000000000000000000001', 'hex'), Buffer.from([0xc0, 2, 7, 0x5b])]);
    let n = 0;
    const greet = async (header, address, bytewise) => {
        const id = `proxied${n++}`;
        const c = new RawClient(plain);
        const all = Buffer.concat([Buffer.from(header), CONNECT(id)]);
        if (bytewise) {
            for (const byte of all) { c.write(Buffer.from([byte])); await new Promise((r) => setImmediate(r)); }
        } else {
            c.write(all);
        }
        assert.ok((await c.take(4)).equals(CONNACK));
        await until('its line', () => node.stderr.includes(`client=${id} address=${address}`) || node.stderr.includes(`client=${id} address="${address}`));
        return c;
    };
    await greet('PROXY TCP4 192.0.2.7 192.0.2.1 49153 1883\r\n', '192.0.2.7:49153');
    await greet('PROXY TCP6 2001:db8::9 2001:db8::1 49154 1883\r\n', '[2001:db8::9]:49154', true);
    await greet('PROXY UNKNOWN whatever\r\n', '127.0.0.1:');
    await greet(v2(0x11, four), '192.0.2.7:49153');
    await greet(v2(0x11, Buffer.concat([four, Buffer.from([4, 0, 2, 0, 0])])), '192.0.2.7:49153', true);
    await greet(v2(0x21, six), '[2001:db8::9]:49154', true);
    await greet(v2(0, Buffer.alloc(0), 0x20), '127.0.0.1:');

    for (const bad of [CONNECT('direct'), 'PROXY TCP4 192.0.2.7 192.0.2.1 49153\r\n', 'PROXY TCP4 300.0.2.7 192.0.2.1 49153 1883\r\n',
        'PROXY TCP4 192.0.2.7 192.0.2.1 49153 99999\r\n', 'PROXY UDP4 192.0.2.7 192.0.2.1 1 2\r\n', 'PROXY ' + 'x'.repeat(200),
        v2(0x12, four), v2(0x11, four.subarray(0, 4)), v2(0x11, four, 0x11), v2(0x11, Buffer.concat([four, Buffer.from([4, 9, 9, 0])])),
        v2(0x11, Buffer.alloc(60000))]) {
        const c = new RawClient(plain);
        c.write(bad);
        assert.equal((await c.end()).length, 0);
    }
    const half = new RawClient(plain);
    half.write('PROXY TCP4 192');
    await half.end(); // connect_timeout

    // Behind a proxy of our own: the header, then TLS.
    const relay = net.createServer((from) => {
        const to = net.connect(node.on('tls').port, '127.0.0.1');
        to.write(v2(0x11, four));
        from.pipe(to).pipe(from);
        for (const s of [from, to]) s.on('error', () => { from.destroy(); to.destroy(); });
    });
    await new Promise((resolve) => relay.listen(0, '127.0.0.1', resolve));
    cleanup(() => relay.close());
    const c = await client(`mqtts://127.0.0.1:${relay.address().port}`, { ca: readFileSync(ca.crt), clientId: 'behind-tls' });
    await exchange(c, c, 'proxied', [1, 100000]);
    await until('its line', () => /client=behind-tls address=192\.0\.2\.7:49153/.test(node.stderr));
    const w = new RawClient(node.on('ws').port);
    w.write(Buffer.concat([v2(0x21, six), Buffer.from(UPGRADE), frame(CONNECT('behind-ws'))]));
    await w.http();
    assert.ok((await w.frame()).payload.equals(CONNACK));
    await until('its line', () => /client=behind-ws address="?\[2001:db8::9\]:49154/.test(node.stderr));
});

test('each listener has limits of its own', async () => {
    const node = await startWith(['listener 0 127.0.0.1', 'max_connections 2', 'maximum_qos 1', 'max_topic_alias 3', 'listener_max_packet_size 1000',
        'listener 0 127.0.0.1', 'listener_allow_anonymous false', 'listener 0 localhost']);
    const [limited, closed, local] = node.listeners.map((l) => l.port);
    let connack;
    const raw = mqtt.connect(`mqtt://127.0.0.1:${limited}`, { protocolVersion: 5, reconnectPeriod: 0 });
    cleanup(() => raw.end(true));
    connack = await new Promise((resolve) => raw.on('connect', resolve));
    assert.equal(connack.properties.maximumQoS, 1);
    assert.equal(connack.properties.topicAliasMaximum, 3);
    assert.equal(connack.properties.maximumPacketSize, 1000);
    await client(`mqtt://127.0.0.1:${limited}`);
    const third = new RawClient(limited);
    await third.end();
    const free = await node.client();
    await free.publishAsync('a', 'x', { qos: 2 });
    // QoS 2 where 1 is the most [MQTT-3.2.2-11]: DISCONNECT 0x9B.
    const c = new RawClient(limited);
    await c.end().catch(() => {});
    raw.end(true);
    await until('a place', async () => (await node.metrics())[`chronos_listener_connections{listener="127.0.0.1:${limited}",kind="mqtt"}`] < 2);
    const rude = new RawClient(limited);
    rude.write(Buffer.concat([Buffer.from([0x10, 17]), Buffer.from([0, 4]), Buffer.from('MQTT'), Buffer.from([5, 2, 0, 60, 0, 0, 4]), Buffer.from('rude')]));
    const n = (await rude.take(2))[1];
    await rude.take(n);
    rude.write(Buffer.from([0x34, 7, 0, 1, 0x61, 0, 1, 0, 0x78]));
    assert.equal((await rude.take(3))[2], 0x9b);
    await rude.end();
    await assert.rejects(client(`mqtt://127.0.0.1:${closed}`));
    await client(`mqtt://localhost:${local}`);
    assert.ok((await node.metrics())[`chronos_listener_refused_total{listener="127.0.0.1:${limited}",kind="mqtt"}`] >= 1);
});

test('IPv6 and all addresses; the line that says only loopback is listened on', async () => {
    const six = await new Promise((resolve) => {
        const s = net.createServer();
        s.on('error', () => resolve(false));
        s.listen(0, '::1', () => s.close(() => resolve(true)));
    });
    const node = await startWith(['listener 0 127.0.0.1', ...(six ? ['listener 0 ::1', 'listener 0', 'socket_domain ipv6', 'listener_allow_anonymous true'] : [])]);
    assert.equal(/listening on loopback only/.test(node.stderr), !six);
    assert.match((await startWith(['listener 0 127.0.0.1'])).stderr, /listening on loopback only/);
    if (six) {
        const [, v6, wide] = node.listeners;
        const c = await client(`mqtt://[::1]:${v6.port}`, { clientId: 'six' });
        await exchange(c, c, 'six', [1]);
        await until('its line', () => /client=six address="?\[::1\]:/.test(node.stderr));
        assert.match(wide.address, /^\[::\]:/);
        await client(`mqtt://[::1]:${wide.port}`);
    }
});
