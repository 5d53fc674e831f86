// Random and mutated packets against the MQTT port: the node lives, answers, and its memory is back.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from './lib/harness.mjs';
import { BUILD, run, sanitized, startChronos } from './lib/chronos.mjs';

const PACKETS = process.env.LONG ? 10000000 : 200000;
const seed = process.env.CHR_SEED ?? String(Date.now() % 1000000);

test(`${PACKETS} random packets`, async () => {
    // Everything that random packets may leave behind (sessions, retained messages, rows) is bounded
    // tightly, so that what still grows is a leak. The sanitizer's quarantine would look like one.
    const node = await startChronos(
        ['--max-session-expiry', '1s', '--max-retained-messages', '100', '--hot-limit', '4MiB',
            '--max-packet-size', '1MiB', '--log-level', 'error'],
        { ASAN_OPTIONS: 'quarantine_size_mb=4:detect_leaks=1:abort_on_error=0:exitcode=99' });
    const storm = await run(join(BUILD, 'tests', 'chr_test_packet_storm'),
        ['--address', `127.0.0.1:${node.port}`, '--packets', String(PACKETS), '--seed', seed,
            '--pid', String(node.pid), '--grow-kib', sanitized ? '131072' : '32768'],
        { timeoutMs: PACKETS / 500 * 1000 });
    assert.equal(storm.code, 0, `${storm.stdout}${storm.stderr}\n${node.stderr.slice(-8000)}`);
    console.error(storm.stdout);
    // A leak shows at the end of the process: with the leak sanitizer its exit code is not 0.
    const { code, signal } = await node.stop();
    assert.equal(code, 0, `ended with ${code ?? signal}:\n${node.stderr.slice(-8000)}`);
}, { timeoutMs: PACKETS / 400 * 1000 });
