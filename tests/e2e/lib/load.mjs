// Numbered readings under load (main_crash_publisher.c), and what has to be in the tables after it.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { cleanup, until } from './harness.mjs';
import { BUILD } from './chronos.mjs';

const PUBLISHER = join(BUILD, 'tests', 'chr_test_crash_publisher');

export const seed = Number(process.env.CHR_SEED ?? Date.now() % 1000000);

/** mulberry32: what is drawn repeats with the seed. */
export function random(state) {
    return () => {
        state = (state + 0x6d2b79f5) | 0;
        let t = Math.imul(state ^ (state >>> 15), 1 | state);
        t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
        return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
}

/** The length of a fault, not a wait for its outcome. */
export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export function publisher(port, args) {
    const child = spawn(PUBLISHER, ['--address', `127.0.0.1:${port}`, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
    cleanup(() => child.kill('SIGKILL'));
    let out = '', err = '';
    child.stdout.on('data', (t) => (out += t));
    child.stderr.on('data', (t) => (err += t));
    const done = new Promise((resolve) => child.on('close', (code) => resolve({ code, out, err })));
    return { child, done };
}

export const perDevice = (prefix) =>
    `SELECT device_id, count(*), count(DISTINCT value), min(value), max(value) FROM readings
     WHERE device_id LIKE '${prefix}-%' GROUP BY device_id ORDER BY device_id`;

/** Every acknowledged reading is there, none twice, none missing before another. Their number. */
export function checkRows(rows, clients, { all = false } = {}) {
    const byDevice = new Map(rows.map((r) => [r[0], r]));
    let total = 0;
    for (const { device, sent, acked } of clients) {
        const [, count, distinct, min, max] = byDevice.get(device) ?? [device, 0, 0, null, null];
        const what = `${device}: sent ${sent} acked ${acked} rows ${count} distinct ${distinct} max ${max}`;
        assert.ok(count >= acked, `lost: ${what}`);
        assert.equal(count, distinct, `doubled: ${what}`);
        assert.ok(count <= sent, what);
        if (count) assert.ok(min === 0 && max === count - 1, `a gap: ${what}`);
        if (all) assert.equal(acked, sent, what);
        total += acked;
    }
    return total;
}

/** All that run have applied the same and are well. */
export async function caughtUp(cluster, timeoutMs = 30000) {
    await cluster.leader();
    let states;
    await until('all nodes have applied the same', async () => {
        states = await Promise.all(cluster.running().map((n) => cluster.health(n)));
        return states.every((s) => s && s.apply_index === states[0].apply_index && s.status === 'ok');
    }, timeoutMs).catch((err) => {
        throw new Error(`${err.message}\n${JSON.stringify(states)}`);
    });
}
