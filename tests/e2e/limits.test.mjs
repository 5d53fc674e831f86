// What a client may take of the node, and that it gets no more.
import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { join } from 'node:path';
import { cleanup, test, until } from './lib/harness.mjs';
import { Chronos, tempDir } from './lib/chronos.mjs';

async function started(args) {
    const node = new Chronos(join(tempDir(), 'data'), args);
    await node.start();
    return node;
}

/** A bare connection: {socket, closed, bytes}. */
function bare(node) {
    const it = { socket: connect(node.port, '127.0.0.1'), closed: false, bytes: Buffer.alloc(0) };
    it.socket.on('error', () => {});
    it.socket.on('close', () => (it.closed = true));
    it.socket.on('data', (d) => (it.bytes = Buffer.concat([it.bytes, d])));
    cleanup(() => it.socket.destroy());
    return it;
}

const CONNECT = Buffer.from('101000044d5154540402001e000474657374', 'hex'); // keep alive 30
const connectAs = (id, keepAlive) => {
    const body = Buffer.concat([
        Buffer.from([0, 4, 0x4d, 0x51, 0x54, 0x54, 4, 2, keepAlive >> 8, keepAlive & 255, 0, id.length]),
        Buffer.from(id),
    ]);
    return Buffer.concat([Buffer.from([0x10, body.length]), body]);
};

test('max_connections holds; a place that is free again is given again', async () => {
    const node = await started(['--max-connections', '5']);
    const all = [];
    for (let i = 0; i < 5; i++) {
        const c = bare(node);
        c.socket.write(connectAs(`c${i}`, 0));
        await until('CONNACK', async () => c.bytes.length === 4);
        all.push(c);
    }
    const sixth = bare(node);
    await until('the sixth to be refused', async () => sixth.closed);
    assert.equal(sixth.bytes.length, 0);
    all[0].socket.end(Buffer.from('e000', 'hex'));
    await until('a place', async () => {
        const again = bare(node);
        again.socket.write(CONNECT);
        await until('an answer', async () => again.closed || again.bytes.length === 4);
        return !again.closed;
    });
});

test('a connection that never says CONNECT, or half of it, is closed in time', async () => {
    const node = await started(['--connect-timeout', '1']);
    const silent = bare(node);
    const half = bare(node);
    half.socket.write(CONNECT.subarray(0, 9));
    await until('both to be closed', async () => silent.closed && half.closed);
    assert.equal(half.bytes.length, 0);
});

test('keep alive: silence ends it after 1.5 times, not before', async () => {
    const node = await started();
    const c = bare(node);
    const from = Date.now();
    c.socket.write(connectAs('quiet', 2));
    await until('the end', async () => c.closed);
    const seconds = (Date.now() - from) / 1000;
    assert.ok(seconds >= 2.9 && seconds < 6, `${seconds} s`);
});

test('a packet above max_packet_size ends its connection before it is received', async () => {
    const node = await started(['--max-packet-size', '4096']);
    const c = bare(node);
    c.socket.write(connectAs('large', 0));
    await until('CONNACK', async () => c.bytes.length === 4);
    c.socket.write(Buffer.from('30ffff7f0001', 'hex')); // PUBLISH of 2 MiB, its first bytes
    await until('the end', async () => c.closed);
});

test('the will of a lost client does not wait for the next second', async () => {
    const node = await started();
    const watcher = await node.client();
    await watcher.subscribeAsync('gone/#', { qos: 1 });
    const waits = [];
    for (let i = 0; i < 5; i++) {
        const device = await node.client({
            will: { topic: `gone/${i}`, payload: 'x', qos: 1, retain: false },
        });
        const got = new Promise((resolve) => watcher.once('message', resolve));
        const from = performance.now();
        device.stream.destroy();
        await got;
        waits.push(performance.now() - from);
    }
    waits.sort((a, b) => a - b);
    assert.ok(waits[2] < 300, `wills after ${waits.map((w) => w.toFixed(0))} ms`);
});

test('a node that is stopped with a reader that takes nothing does not spin or hang', async () => {
    const node = await started();
    const reader = bare(node);
    reader.socket.write(connectAs('reader', 0));
    await until('CONNACK', async () => reader.bytes.length === 4);
    reader.socket.write(Buffer.from('820600010001' + '2300', 'hex')); // SUBSCRIBE # at QoS 0
    await until('SUBACK', async () => reader.bytes.length === 9);
    reader.socket.pause();
    const writer = await node.client();
    const payload = Buffer.alloc(1 << 20);
    for (let i = 0; i < 12; i++) await writer.publishAsync('big', payload, { qos: 1 });
    const { code } = await node.stop();
    assert.equal(code, 0);
});
