// kill -9 under load, again and again: nothing acknowledged is lost, nothing is doubled.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { test, cleanup } from './lib/harness.mjs';
import { BIN, BUILD, Chronos, run, tempDir } from './lib/chronos.mjs';
import { freePort } from './lib/port.mjs';

const ROUNDS = process.env.LONG ? 100 : 10;
const PUBLISHER = join(BUILD, 'tests', 'chr_test_crash_publisher');
const seed = Number(process.env.CHR_SEED ?? Date.now() % 1000000);

// mulberry32: the moments of the kills repeat with the seed.
function random(state) {
    return () => {
        state = (state + 0x6d2b79f5) | 0;
        let t = Math.imul(state ^ (state >>> 15), 1 | state);
        t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
        return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

function publisher(port, args) {
    const child = spawn(PUBLISHER, ['--address', `127.0.0.1:${port}`, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
    cleanup(() => child.kill('SIGKILL'));
    let out = '', err = '';
    child.stdout.on('data', (t) => (out += t));
    child.stderr.on('data', (t) => (err += t));
    const done = new Promise((resolve) => child.on('close', (code) => resolve({ code, out, err })));
    return { child, done };
}

async function checkClean(dataDir) {
    const check = await run(BIN, ['check', '--data-dir', dataDir], { timeoutMs: 60000 });
    assert.equal(check.code, 0, `chronos check: ${check.stdout}${check.stderr}`);
}

const perDevice = (prefix) =>
    `SELECT device_id, count(*), count(DISTINCT value), min(value), max(value) FROM readings
     WHERE device_id LIKE '${prefix}-%' GROUP BY device_id ORDER BY device_id`;

test(`QoS 1, ${ROUNDS} kills`, async () => {
    console.error(`seed ${seed}`);
    const next = random(seed);
    // Small limits, so that kills fall into checkpoints and segment changes, too.
    const node = new Chronos(join(tempDir(), 'data'), ['--hot-limit', '4MiB', '--checkpoint-log-bytes', '8MiB']);
    await node.start();
    let total = 0;
    for (let round = 0; round < ROUNDS; round++) {
        const load = publisher(node.port, ['--qos', '1', '--prefix', `r${round}`, '--window', '256']);
        await pause(20 + next() * 400);
        await node.kill();
        const { code, out, err } = await load.done;
        assert.equal(code, 0, err);
        await checkClean(node.dataDir);
        node.stderr = '';
        await node.start();
        const rows = new Map((await node.rows(perDevice(`r${round}`))).map((r) => [r[0], r]));
        for (const { device, sent, acked } of JSON.parse(out).clients) {
            const [, count, distinct, min, max] = rows.get(device) ?? [device, 0, 0, null, null];
            const what = `round ${round} ${device}: sent ${sent} acked ${acked} rows ${count} distinct ${distinct} max ${max}`;
            assert.ok(count >= acked, `lost: ${what}`);
            assert.equal(count, distinct, `doubled: ${what}`);
            assert.ok(count <= sent, what);
            if (count) assert.ok(min === 0 && max === count - 1, `a gap: ${what}`);
            total += acked;
        }
    }
    console.error(`${total} readings acknowledged`);
    assert.ok(total > ROUNDS * 100, `only ${total} readings acknowledged: nothing was shown`);
}, { timeoutMs: ROUNDS * 20000 });

test(`QoS 2 on sessions that outlive the connection, ${ROUNDS} kills`, async () => {
    console.error(`seed ${seed}`);
    const next = random(seed + 1);
    const port = await freePort();
    const node = new Chronos(join(tempDir(), 'data'),
        ['--address', `127.0.0.1:${port}`, '--hot-limit', '4MiB', '--checkpoint-log-bytes', '8MiB']);
    await node.start();
    const load = publisher(port, ['--qos', '2', '--prefix', 'q', '--window', '32', '--ids', '48']);
    for (let round = 0; round < ROUNDS; round++) {
        await pause(20 + next() * 400);
        await node.kill();
        await checkClean(node.dataDir);
        node.stderr = '';
        await node.start();
    }
    load.child.kill('SIGTERM');
    const { code, out, err } = await load.done;
    assert.equal(code, 0, err);
    const rows = new Map((await node.rows(perDevice('q'))).map((r) => [r[0], r]));
    for (const { device, sent, acked } of JSON.parse(out).clients) {
        const [, count, distinct, , max] = rows.get(device);
        const what = `${device}: sent ${sent} acked ${acked} rows ${count} distinct ${distinct} max ${max}`;
        assert.equal(acked, sent, what);
        assert.equal(count, sent, what);
        assert.equal(distinct, sent, what);
        assert.ok(sent > 48 * 3, `identifiers wrapped: ${what}`);
    }
}, { timeoutMs: ROUNDS * 20000 });
