// $SYS beside a real mosquitto's, metrics by reason code, and that both count what happened.
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import mqtt from 'mqtt';
import { test, cleanup, skip, until } from './lib/harness.mjs';
import { startChronos, tempDir } from './lib/chronos.mjs';

// What mosquitto(8) lists and a mosquitto without bridges does not publish, or not under that name.
// docs/monitoring.md says why we do not have it.
const EXCEPTIONS = ['$SYS/broker/connection/#', '$SYS/broker/heap/current size', '$SYS/broker/heap/maximum size'];

async function freePort() {
    const server = createServer();
    await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address();
    await new Promise((resolve) => server.close(resolve));
    return port;
}

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
            assert.ok(m && seen.has(`TYPE ${m[1]}`) && Number.isFinite(Number(m[3])), line);
        }
    }
});
