// A node that is drained sends its clients elsewhere (4.11), one that stops says so.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import mqtt from 'mqtt';
import { cleanup, test, until } from './lib/harness.mjs';
import { Chronos, run, tempDir } from './lib/chronos.mjs';

async function started(args) {
    const node = new Chronos(join(tempDir(), 'data'), args);
    await node.start();
    return node;
}

/** The CONNACK that a client gets. */
function connack(node, protocolVersion) {
    const client = mqtt.connect(node.url(), { protocolVersion, reconnectPeriod: 0 });
    cleanup(() => client.end(true));
    client.on('error', () => {});
    return new Promise((resolve, reject) => {
        client.on('packetreceive', resolve);
        client.on('close', () => reject(new Error('closed without CONNACK')));
    });
}

/** What a connected client is told at the end, after `how` was done; null: nothing. */
async function farewell(node, protocolVersion, how) {
    const client = await node.client({ protocolVersion });
    let disconnect = null, closed = false;
    client.on('disconnect', (packet) => (disconnect = packet));
    client.on('close', () => (closed = true));
    await how();
    await until('the connection to end', async () => closed);
    return disconnect;
}

for (const [how, code] of [['use-another-server', 0x9c], ['server-moved', 0x9d]]) {
    test(`redirect ${how}: CONNECT is answered with where to go`, async () => {
        const node = await started(['--redirect', how, '--server-reference', 'b.example:1883 c.example']);
        const five = await connack(node, 5);
        assert.equal(five.reasonCode, code);
        assert.equal(five.properties.serverReference, 'b.example:1883 c.example');
        assert.equal(five.properties.reasonString, undefined);
        const four = await connack(node, 4);
        assert.equal(four.returnCode, 3); // server unavailable
        // and a client of another make gives up
        const pub = await run('mosquitto_pub',
            ['-V', '5', '-p', String(node.port), '-t', 'a', '-m', 'x']);
        assert.notEqual(pub.code, 0);
    });
}

test('a redirect need not say where', async () => {
    const node = await started(['--redirect', 'server-moved']);
    const packet = await connack(node, 5);
    assert.equal(packet.reasonCode, 0x9d);
    assert.equal(packet.properties?.serverReference, undefined);
});

test('a node that stops says 0x8B', async () => {
    const node = await started([]);
    const packet = await farewell(node, 5, async () => node.signal('SIGTERM'));
    assert.equal(packet.reasonCode, 0x8b);
    assert.equal((await node.exited).code, 0);
});

test('a node that stops and knows another server says 0x9C and which', async () => {
    const node = await started(['--server-reference', 'b.example:1883']);
    const old = await node.client({ protocolVersion: 4 });
    let told = null, closed = false;
    old.on('disconnect', (packet) => (told = packet));
    old.on('close', () => (closed = true));
    const packet = await farewell(node, 5, async () => node.signal('SIGTERM'));
    assert.equal(packet.reasonCode, 0x9c);
    assert.equal(packet.properties.serverReference, 'b.example:1883');
    await until('the 3.1.1 client to be let go', async () => closed);
    assert.equal(told, null); // 3.1.1 has no DISCONNECT of a server
});
