// Recorded sensor data through MQTT at QoS 1: SQL answers what an independent program computes.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test, skip, until } from './lib/harness.mjs';
import { run, startChronos } from './lib/chronos.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const DATA = process.env.CHR_RECORDED ?? join(here, '../../../shared/data');
const SETS = {
    room: 'room-occupancy-7nodes.csv.xz',
    lorawan: 'lorawan-uplinks-5devices.csv.xz',
    beijing: 'beijing-air-12stations.csv.xz',
};
const IN_FLIGHT = 2000;

async function publishAll(node, name, file) {
    const client = await node.client({ protocolVersion: 4 });
    const reader = spawn('python3', [join(here, 'recorded.py'), 'messages', name, file]);
    let sent = 0, acked = 0, refused = null, wake = () => {};
    for await (const line of createInterface({ input: reader.stdout })) {
        const tab = line.indexOf('\t');
        sent++;
        client.publish(line.slice(0, tab), line.slice(tab + 1), { qos: 1 }, (err) => {
            acked++;
            refused ??= err;
            wake();
        });
        while (sent - acked > IN_FLIGHT) await new Promise((resolve) => (wake = resolve));
    }
    while (acked < sent) await new Promise((resolve) => (wake = resolve));
    if (refused) throw refused;
    return sent;
}

const quoted = (name) => `"${name}"`;

async function compare(node, name, want, when) {
    const columns = Object.keys(want.columns);
    const select = columns.map((c) => `count(${quoted(c)}), min(${quoted(c)}), max(${quoted(c)}), sum(${quoted(c)})`);
    const [row] = await node.rows(`SELECT count(*), ${select.join(', ')} FROM ${name}`);
    assert.equal(row[0], want.count, `${when}: rows`);
    columns.forEach((c, i) => {
        const [count, min, max, sum] = row.slice(1 + 4 * i, 5 + 4 * i);
        const w = want.columns[c];
        assert.equal(count, w.count, `${when}: count(${c})`);
        assert.equal(min, w.min, `${when}: min(${c})`);
        assert.equal(max, w.max, `${when}: max(${c})`);
        // SUM(FLOAT) may differ in the last bits between plans.
        assert.ok(Math.abs(sum - w.sum) <= 1e-9 * Math.max(1, Math.abs(w.sum)), `${when}: sum(${c}) ${sum} ${w.sum}`);
    });
    const devices = await node.rows(`SELECT device, count(*) FROM ${name} GROUP BY device`);
    assert.deepEqual(Object.fromEntries(devices), want.devices, `${when}: rows per device`);
}

const chunkReads = (m) =>
    Object.entries(m).filter(([k]) => /chunks?_(decoded|from_statistics)/.test(k)).reduce((sum, [, v]) => sum + v, 0);

for (const [name, fileName] of Object.entries(SETS)) {
    test(name, async () => {
        const file = join(DATA, fileName);
        if (!existsSync(file)) skip('the recorded data are not here');
        if (process.env.BUILD?.includes('asan') && name === 'beijing') skip('too slow under sanitizers');
        const expect = await run('python3', [join(here, 'recorded.py'), 'expect', name, file], { timeoutMs: 60000 });
        const want = JSON.parse(expect.stdout);

        const node = await startChronos();
        const columns = Object.keys(want.columns).map((c) => `${quoted(c)} FLOAT`).join(', ');
        const create = await node.sql(`CREATE TABLE ${name} (device STRING, ts TIMESTAMP, wd STRING, ${columns})
            WITH TOPIC='recorded/${name}/{device}', FORMAT=json`);
        assert.equal(create.error, undefined, JSON.stringify(create.error));
        assert.equal(await publishAll(node, name, file), want.count);
        await compare(node, name, want, 'from hot rows');

        await node.restart();
        await compare(node, name, want, 'after kill -9');

        const checkpoints = async () => (await node.metrics()).chronos_checkpoints_total;
        const before = await checkpoints();
        node.signal('SIGUSR1');
        await until('a checkpoint', async () => (await checkpoints()) > before);
        await node.restart();
        const readsBefore = chunkReads(await node.metrics());
        await compare(node, name, want, 'from chunks');
        assert.ok(chunkReads(await node.metrics()) > readsBefore, 'answered from chunks');
    }, { timeoutMs: 240000 });
}
