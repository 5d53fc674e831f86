// The service unit, and what the node tells its service manager.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { BIN, run, startChronos, tempDir } from './lib/chronos.mjs';
import { cleanup, skip, test, until } from './lib/harness.mjs';

const unitFile = join(dirname(fileURLToPath(import.meta.url)), '../../packaging/chronos.service');

test('systemd accepts the unit', async () => {
    if (!existsSync('/usr/bin/systemd-analyze')) skip('no systemd-analyze here');
    const unit = readFileSync(unitFile, 'utf8');
    const file = join(tempDir(), 'chronos.service');
    writeFileSync(file, unit.replaceAll('/usr/bin/chronos', BIN));
    const good = await run('systemd-analyze', ['verify', file]);
    assert.deepEqual([good.code, good.stdout + good.stderr], [0, '']);
    // It does look: a directive that it doesn't know is reported.
    writeFileSync(file, unit.replaceAll('/usr/bin/chronos', BIN).replace('Type=notify', 'Typ=notify'));
    const bad = await run('systemd-analyze', ['verify', file]);
    assert.match(bad.stdout + bad.stderr, /Unknown key.* 'Typ'/);
});

/** A service manager's socket; resolves to {path, lines}. */
async function notifySocket() {
    const path = join(tempDir('n-'), 's');
    const code = [
        'import socket, sys',
        's = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)',
        's.bind(sys.argv[1])',
        'print("bound", flush=True)',
        'while True: print(" ".join(s.recv(4096).decode().split("\\n")), flush=True)',
    ].join('\n');
    const child = spawn('python3', ['-c', code, path], { stdio: ['ignore', 'pipe', 'inherit'] });
    cleanup(() => child.kill());
    let text = '';
    child.stdout.setEncoding('utf8').on('data', (t) => (text += t));
    const lines = () => text.split('\n').slice(0, -1);
    await until('the socket', () => lines().length);
    return { path, lines: () => lines().slice(1) };
}

test('READY=1, RELOADING=1 around a reload, STOPPING=1', async () => {
    const socket = await notifySocket();
    const node = await startChronos([], { NOTIFY_SOCKET: socket.path });
    await until('READY=1', () => socket.lines().length === 1);
    node.signal('SIGHUP');
    await until('the end of the reload', () => socket.lines().length === 3);
    await node.stop();
    await until('STOPPING=1', () => socket.lines().length === 4);
    const [ready, reloading, again, stopping] = socket.lines();
    assert.equal(ready, 'READY=1');
    assert.match(reloading, /^RELOADING=1 MONOTONIC_USEC=\d+$/);
    assert.equal(again, 'READY=1');
    assert.equal(stopping, 'STOPPING=1');
});
