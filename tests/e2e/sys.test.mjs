// $SYS beside a real mosquitto's, metrics by reason code, and that both count what happened.
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import mqtt from 'mqtt';
import { test, cleanup, skip, until } from './lib/harness.mjs';
import { startChronos, tempDir } from './lib/chronos.mjs';
import { freePort } from './lib/port.mjs';

// What mosquitto(8) lists and a mosquitto without bridges does not publish, or not under that name.
// docs/monitoring.md says why we do not have it.
const EXCEPTIONS = ['$SYS/broker/connection/#', '$SYS/broker/heap/current size', '$SYS/broker/heap/maximum size'];

/** A mosquitto of its own; resolves to its port. */
async function startMosquitto(lines) {
    try {
        execFileSync('mosquitto', ['-h'], { stdio: 'pipe' });
    } catch (err) {
        if (err.code === 'ENOENT') skip('there is no mosquitto');
    }
    const port = await freePort();
    const file = join(tempDir('mosquitto-'), 'mosquitto.conf');
    writeFileSync(file, `listener ${port} 127.0.0.1\nallow_anonymous true\n${lines}\n`);
    const child = spawn('mosquitto', ['-c', file], { stdio: 'ignore' });
    const exited = new Promise((resolve) => child.on('exit', resolve));
    cleanup(async () => {
        child.kill('SIGKILL');
        await exited;
    });
    await until('mosquitto to listen', () => new Promise((resolve) => {
        const socket = connect(port, '127.0.0.1', () => { socket.destroy(); resolve(true); });
        socket.on('error', () => resolve(false));
    }));
    return port;
}

/** Keeps the last value of every topic under $SYS. */
async function watch(port) {
    const values = new Map();
    const retained = new Set();
    const client = await mqtt.connectAsync(`mqtt://127.0.0.1:${port}`, { protocolVersion: 5, reconnectPeriod: 0 });
    cleanup(() => client.endAsync(true).catch(() => {}));
    client.on('message', (topic, payload, packet) => {
        values.set(topic, payload.toString());
        if (packet.retain) retained.add(topic);
    });
    await client.subscribeAsync('$SYS/#');
    return { values, retained, client };
}

test('$SYS: each topic that a mosquitto publishes, and each that its manual lists', async () => {
    const theirs = await watch(await startMosquitto('sys_interval 1'));
    const node = await startChronos();
    const ours = await watch(node.port);
    await until('mosquitto to have published all', () => ['load/sockets/15min', 'load/publish/dropped/15min', 'publish/bytes/sent', 'bytes/sent', 'heap/maximum', 'store/messages/bytes']
        .every((name) => theirs.values.has(`$SYS/broker/${name}`)));
    await until('ours', () => ours.values.has('$SYS/broker/load/sockets/15min'));
    assert.ok(theirs.values.size >= 50, String(theirs.values.size));
    const missing = [...theirs.values.keys()].filter((topic) => !ours.values.has(topic) && !EXCEPTIONS.includes(topic));
    assert.deepEqual(missing, []);
    const manual = [
        'bytes/received', 'bytes/sent', 'clients/connected', 'clients/active', 'clients/expired', 'clients/disconnected',
        'clients/inactive', 'clients/maximum', 'clients/total', 'connection/#', 'heap/current size', 'heap/maximum size',
        ...['connections', 'bytes/received', 'bytes/sent', 'messages/received', 'messages/sent', 'publish/dropped',
            'publish/received', 'publish/sent', 'sockets'].flatMap((n) => [1, 5, 15].map((m) => `load/${n}/${m}min`)),
        'messages/inflight', 'messages/received', 'messages/sent', 'publish/messages/dropped', 'publish/messages/received',
        'publish/messages/sent', 'retained messages/count', 'store/messages/count', 'messages/stored', 'store/messages/bytes',
        'subscriptions/count', 'version',
    ].map((name) => `$SYS/broker/${name}`);
    assert.deepEqual(manual.filter((topic) => !ours.values.has(topic) && !EXCEPTIONS.includes(topic)), []);
    // All of them are retained, and look like theirs: a number, seconds, a version.
    for (const [topic, value] of ours.values) {
        assert.ok(ours.retained.has(topic), topic);
        if (topic === '$SYS/broker/version') assert.match(value, /^chronos version \d/);
        else if (topic === '$SYS/broker/uptime') assert.match(value, /^\d+ seconds$/);
        else assert.match(value, topic.includes('/load/') ? /^\d+\.\d\d$/ : /^\d+$/, topic);
    }
});

test('metrics: by listener, by QoS, by reason code', async () => {
    const node = await startChronos(['--loops', '2']);
    const sum = async (pattern) => Object.entries(await node.metrics())
        .reduce((n, [name, value]) => (pattern.test(name) ? n + value : n), 0);
    const client = await node.client({ clientId: 'one' });
    let got = 0;
    client.on('message', () => got++);
    await client.subscribeAsync('there/#', { qos: 2 });
    for (const qos of [0, 1, 1, 2, 2, 2]) await client.publishAsync('there/x', 'ten bytes.', { qos });
    await until('all six', () => got === 6);
    for (let qos = 0; qos < 3; qos++) {
        assert.equal(await sum(new RegExp(`^chronos_publishes_received_total.*qos="${qos}"`)), qos + 1);
        assert.equal(await sum(new RegExp(`^chronos_publishes_sent_total.*qos="${qos}"`)), qos + 1);
    }
    assert.equal(await sum(/^chronos_publish_received_bytes_total/), 60);
    assert.equal(await sum(/^chronos_publish_sent_bytes_total/), 60);
    assert.equal(await sum(/^chronos_listener_connections.*kind="mqtt"/), 1);
    assert.equal(await sum(/^chronos_connects_accepted_total/), 1);
    // Ends: by the client, by us, by nobody.
    const normal = await node.client({ clientId: 'normal' });
    await normal.endAsync();
    const withWill = await node.client({ clientId: 'with-will' });
    await withWill.endAsync(false, { reasonCode: 4 });
    const lost = await node.client({ clientId: 'lost' });
    lost.stream.destroy();
    const first = await node.client({ clientId: 'twice' });
    const told = new Promise((resolve) => first.on('close', resolve));
    await node.client({ clientId: 'twice' });
    await told;
    const kicked = await node.client({ clientId: 'kicked' });
    assert.equal((await node.sql("KILL CLIENT 'kicked'")).row_count, 1);
    kicked.end(true);
    const ended = (by, code) => sum(new RegExp(`^chronos_disconnects_total.*by="${by}",code="${code}"`));
    await until('all ends to be counted', async () => (await ended('client', '0x00')) === 1
        && (await ended('client', '0x04')) === 1 && (await ended('server', '0x8e')) === 1
        && (await ended('server', '0x98')) === 1 && (await sum(/^chronos_connections_lost_total/)) === 1);
    assert.match((await node.http('/metrics')).text, /chronos_disconnects_total\{by="server",code="0x98",reason="Administrative action"\} 1\n/);
    // Refused: an empty client id without a clean session, in 3.1.1; a version nobody knows.
    const refused = (bytes) => new Promise((resolve) => {
        const socket = connect(node.port, '127.0.0.1', () => socket.write(Buffer.from(bytes)));
        socket.on('data', () => {});
        socket.on('close', resolve);
        socket.on('error', () => {});
    });
    await refused([0x10, 12, 0, 4, 77, 81, 84, 84, 4, 0, 0, 0, 0, 0]);
    await refused([0x10, 14, 0, 4, 77, 81, 84, 84, 9, 2, 0, 0, 0, 2, 97, 98]);
    assert.equal(await sum(/^chronos_connects_refused_total.*code="0x85",reason="Client Identifier not valid"/), 1);
    assert.equal(await sum(/^chronos_connects_refused_total.*code="0x84"/), 1);
    // Every line is one that Prometheus reads: HELP and TYPE once, in front.
    const text = (await node.http('/metrics')).text;
    const seen = new Set();
    for (const line of text.trimEnd().split('\n')) {
        const help = /^# (HELP|TYPE) (\S+)/.exec(line);
        if (help) {
            assert.ok(!seen.has(`${help[1]} ${help[2]}`), line);
            seen.add(`${help[1]} ${help[2]}`);
        } else {
            const m = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(\{[^}]*\})? (\S+)$/.exec(line);
            // The lines of a histogram bear its name and a suffix.
            const named = m && [m[1], m[1].replace(/_(bucket|sum|count)$/, '')];
            assert.ok(m && named.some((n) => seen.has(`TYPE ${n}`)) && Number.isFinite(Number(m[3])), line);
        }
    }
});

test('$SYS counts what happened; sys_interval says how often, and 0 not at all', async () => {
    const node = await startChronos(['--sys-interval', '1', '--loops', '2']);
    const { values } = await watch(node.port);
    const value = (name) => Number(values.get(`$SYS/broker/${name}`));
    const away = await node.client({ clientId: 'away', clean: false, properties: { sessionExpiryInterval: 600 } });
    await away.subscribeAsync('for/away', { qos: 1 });
    await away.endAsync();
    const client = await node.client({ clientId: 'one' });
    let got = 0;
    client.on('message', () => got++);
    await client.subscribeAsync('$share/g/there/#', { qos: 1 });
    for (let i = 0; i < 7; i++) await client.publishAsync('there/x', 'ten bytes.', { qos: 1 });
    await client.publishAsync('for/away', 'kept', { qos: 1 });
    await client.publishAsync('to/keep', 'retained', { qos: 1, retain: true });
    await until('all seven', () => got === 7);
    await until('them to be counted', () => value('publish/messages/received') === 9);
    await until('the rest', () => value('clients/connected') === 2 && value('clients/disconnected') === 1
        && value('publish/bytes/received') === 82 && value('shared_subscriptions/count') === 1
        && value('messages/inflight') === 0);
    assert.equal(value('clients/total'), 3);
    assert.equal(value('clients/active'), 2);
    assert.equal(value('clients/inactive'), 1);
    assert.ok(value('clients/maximum') >= 2 && value('clients/maximum') <= 3, values.get('$SYS/broker/clients/maximum'));
    assert.equal(value('subscriptions/count'), 3);
    assert.ok(value('publish/messages/sent') >= 7);
    assert.ok(value('publish/bytes/sent') >= 70);
    assert.ok(value('load/sockets/1min') > 0 && value('load/connections/15min') > 0);
    assert.ok(value('messages/received') > 10 && value('messages/sent') > 10);
    assert.ok(value('bytes/received') > 100 && value('bytes/sent') > 100);
    const retained = value('retained messages/count'), stored = value('store/messages/count');
    assert.deepEqual([retained, stored], [1, 2]); // and the queued one; without $SYS itself
    assert.ok(value('store/messages/bytes') >= 12);
    // A message that is sent and not acknowledged.
    const slow = await node.client({ clientId: 'slow', manualAcks: true, properties: { receiveMaximum: 1 } });
    slow.handleMessage = () => {}; // never calls back: no PUBACK
    await slow.subscribeAsync('slow', { qos: 1 });
    await client.publishAsync('slow', 'x', { qos: 1 });
    await until('it to be in flight', () => value('messages/inflight') === 1);
    const quiet = await startChronos(['--sys-interval', '0']);
    const none = await watch(quiet.port);
    await none.client.subscribeAsync('here');
    await none.client.publishAsync('here', 'x', { qos: 1 });
    await until('a message', () => none.values.has('here'));
    assert.deepEqual([...none.values.keys()], ['here']);
});

test('the log says who came, who left, who ended it and why', async () => {
    const node = await startChronos();
    const line = (pattern) => until(String(pattern), () => pattern.exec(node.stderr));
    const came = await node.client({ clientId: 'came', keepalive: 77, clean: false, properties: { sessionExpiryInterval: 9 } });
    await line(/info mqtt: client connected client=came address=127\.0\.0\.1:\d+ user="" listener=127\.0\.0\.1:\d+ version=5 keep_alive_s=77 clean_start=0 expiry_s=9 present=0/);
    await came.endAsync();
    await line(/client disconnected client=came address=127\.0\.0\.1:\d+ user="" reason="Normal disconnection" by=client code=0\n/);
    const will = await node.client({ clientId: 'will' });
    await will.endAsync(false, { reasonCode: 4 });
    await line(/client disconnected client=will .*reason="Disconnect with Will Message" by=client code=4\n/);
    const lost = await node.client({ clientId: 'lost', protocolVersion: 4 });
    lost.stream.destroy();
    await line(/client disconnected client=lost .*reason="connection lost"\n/);
    await node.client({ clientId: 'twice' });
    await node.client({ clientId: 'twice' });
    await line(/client disconnected client=twice .*reason="Session taken over" by=server code=142\n/);
    await node.client({ clientId: 'kicked' });
    await node.sql("KILL CLIENT 'kicked'");
    await line(/client disconnected client=kicked .*reason="Administrative action" by=server code=152\n/);
    const silent = connect(node.port, '127.0.0.1');
    cleanup(() => silent.destroy());
    silent.write(Buffer.from([0x10, 16, 0, 4, 77, 81, 84, 84, 4, 2, 0, 1, 0, 4, 109, 117, 116, 101]));
    await line(/client disconnected client=mute .*reason="Keep Alive timeout" by=server code=141\n/);
    const rude = connect(node.port, '127.0.0.1');
    cleanup(() => rude.destroy());
    rude.write(Buffer.from([0x10, 16, 0, 4, 77, 81, 84, 84, 4, 2, 0, 0, 0, 4, 114, 117, 100, 101, 0x10, 0]));
    await line(/notice mqtt: protocol error, disconnecting client=rude address=127\.0\.0\.1:\d+ /);
    await line(/client disconnected client=rude .*reason="(Protocol Error|Malformed Packet)" by=server code=\d+\n/);
    await assert.rejects(node.client({ clientId: 'bad', will: { topic: '$SYS/x', payload: 'x' } }));
    await line(/notice mqtt: connection refused client=bad address=127\.0\.0\.1:\d+ .*reason="clients may not publish to the topic of the will"/);
    // One line for each end.
    assert.equal(node.stderr.match(/client disconnected client=twice /g).length, 1);
    const off = await startChronos(['--connection-messages=false']);
    const quiet = await off.client({ clientId: 'quiet' });
    await quiet.endAsync();
    await off.rows('SELECT 1');
    assert.doesNotMatch(off.stderr, /client=quiet/);
});
