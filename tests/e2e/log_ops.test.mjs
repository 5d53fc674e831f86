// What sessions tell the log, on its way while the disk does not answer: in order although the
// mappings change meanwhile (R9), and bounded.
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test, until, skip } from './lib/harness.mjs';
import { BUILD, Chronos, sanitized, tempDir } from './lib/chronos.mjs';

const durable = { clean: false, properties: { sessionExpiryInterval: 100 } };

async function nodeOnSickDisk() {
    if (sanitized) skip('LD_PRELOAD before the sanitizer runtime');
    const dir = tempDir();
    const control = join(dir, 'control');
    writeFileSync(control, '');
    const node = new Chronos(join(dir, 'data'), ['--loops', '1'], {
        LD_PRELOAD: join(BUILD, 'tests', 'libshim_disk.so'),
        SHIM_CONTROL: control,
    });
    await node.start();
    const metric = async (name) => Object.entries(await node.metrics())
        .filter(([key]) => key.startsWith(name)).reduce((sum, [, value]) => sum + value, 0);
    return { node, metric, tell: (words) => writeFileSync(control, words) };
}

/** Packet ids of SUBSCRIBEs as they go and of SUBACKs as they come. */
function subscribes(client) {
    const sent = [], acked = [];
    client.on('packetsend', (packet) => packet.cmd === 'subscribe' && sent.push(packet.messageId));
    client.on('packetreceive', (packet) => packet.cmd === 'suback' && acked.push(packet.messageId));
    return { sent, acked };
}

test('SUBSCRIBEs in batches that come back stale take effect in order', async () => {
    const { node, metric, tell } = await nodeOnSickDisk();
    const client = await node.client({ clientId: 'orderly', ...durable });
    const { sent, acked } = subscribes(client);
    const sql = await node.client();
    await sql.subscribeAsync('$chronos/result/orderly');
    tell('hold-sync');
    // It is in the log before them, and not applied: they are batched under the mappings of before.
    const entries = await metric('chronos_entries_total');
    sql.publish('$chronos/sql/orderly', "CREATE TABLE t (n INT) WITH TOPIC='x/t'");
    await until('the statement is in the log', async () => await metric('chronos_entries_total') > entries);
    const batches = await metric('chronos_batches_total');
    const all = [];
    // The same filter each time: which identifier it has in the end tells what was applied last. The
    // others fill a batch with every second or third packet.
    for (let i = 0; i < 20; i++)
        all.push(client.subscribeAsync(['o/#', ...'abcdefg'.split('').map((c) => c.repeat(60000))],
            { qos: 1, properties: { subscriptionIdentifier: i + 1 } }));
    await until('several batches go', async () => await metric('chronos_batches_total') >= batches + 4);
    tell('');
    await Promise.all(all);
    assert.deepEqual(acked, sent);
    assert.ok(await metric('chronos_entries_stale_total') > 1, 'nothing was stale');
    let identifier;
    client.on('message', (topic, payload, packet) => (identifier = packet.properties.subscriptionIdentifier));
    await client.publishAsync('o/x', 'x', { qos: 1 });
    await until('the message comes', () => identifier !== undefined);
    assert.equal(identifier, 20);
}, { timeoutMs: 60000 });

test('who subscribes while the disk hangs is paused, then answered', async () => {
    const { node, metric, tell } = await nodeOnSickDisk();
    const client = await node.client({ clientId: 'eager', ...durable });
    const { acked } = subscribes(client);
    const paused = () => metric('chronos_batch_pauses_total');
    assert.equal(await paused(), 0);
    tell('hold-sync');
    const all = [];
    for (let i = 0; await paused() === 0; i++) {
        assert.ok(i < 2000, 'never paused');
        all.push(client.subscribeAsync(`e/${i}/${'x'.repeat(60000)}`, { qos: 1 }));
        all.at(-1).catch(() => {});
    }
    assert.equal(acked.length, 0, 'answered before the sync returned');
    tell('');
    await Promise.all(all);
    assert.equal(acked.length, all.length);
}, { timeoutMs: 60000 });
