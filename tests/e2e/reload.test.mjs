// SIGHUP: settings are read again; connections stay, new values hold, a bad file changes nothing.
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import mqtt from 'mqtt';
import { startChronos, tempDir } from './lib/chronos.mjs';
import { cleanup, test, until } from './lib/harness.mjs';

const count = (text, what) => text.split(what).length - 1;

/** SIGHUP, and wait until the node has said what came of it. */
async function reload(node, outcome) {
    const before = count(node.stderr, outcome);
    node.signal('SIGHUP');
    await until(outcome, () => count(node.stderr, outcome) > before);
}

test('connections stay, new values hold, a bad file changes nothing', async () => {
    const dir = tempDir();
    const conf = join(dir, 'chronos.conf');
    const included = join(dir, 'conf.d', 'limits.conf');
    mkdirSync(join(dir, 'conf.d'));
    writeFileSync(conf, `log_level info\ninclude_dir ${join(dir, 'conf.d')}\n`);
    writeFileSync(included, 'max_keepalive 100\nmax_packet_size 64KiB\n');
    const node = await startChronos(['--config', conf]);
    const old = await node.client({ clientId: 'stays', keepalive: 300 });
    let closed = false;
    old.on('close', () => (closed = true));

    writeFileSync(included, 'max_keepalive 200\nmax_packet_size 2KiB\nloops 7\n');
    await reload(node, 'settings read again');
    assert.match(node.stderr, /settings read again changed=2 /);
    assert.match(node.stderr, /need a restart keep their values settings=loops/);
    // Whoever was promised 64 KiB has them; whoever comes now is told 2 KiB.
    const big = Buffer.alloc(20000, 'x');
    assert.equal((await node.publish(old, 'plain/big', big)).code, 0);
    let connack;
    const fresh = mqtt.connect(node.url(), {
        clientId: 'new', protocolVersion: 5, keepalive: 300, reconnectPeriod: 0,
    });
    cleanup(() => fresh.endAsync(true).catch(() => {}));
    fresh.on('error', () => {});
    fresh.on('connect', (packet) => (connack = packet));
    await until('CONNACK', () => connack);
    assert.equal(connack.properties.maximumPacketSize, 2048);
    assert.equal(connack.properties.serverKeepAlive, 200);

    writeFileSync(included, 'max_keepalive 50\nmax_paket_size 1KiB\n');
    await reload(node, 'settings refused');
    assert.match(node.stderr, /limits\.conf:2: unknown key max_paket_size; did you mean max_packet_size\?/);
    assert.equal(closed, false);
    assert.equal((await node.publish(old, 'plain/big', big)).code, 0);
    await node.stop();
});

test('the log level changes, the log file is opened again', async () => {
    const dir = tempDir();
    const conf = join(dir, 'chronos.conf');
    const log = join(dir, 'chronos.log');
    const write = (level) =>
        writeFileSync(conf, `log_level ${level}\nlog_dest stderr\nlog_dest file ${log}\n`);
    write('notice');
    const node = await startChronos(['--config', conf]);
    await node.client({ clientId: 'silent' });
    assert.doesNotMatch(node.stderr, /client connected client=silent/);
    write('info');
    renameSync(log, `${log}.1`);
    await reload(node, 'settings read again');
    await node.client({ clientId: 'heard' });
    await until('a line', () => /client connected client=heard/.test(readFileSync(log, 'utf8')));
    assert.doesNotMatch(readFileSync(`${log}.1`, 'utf8'), /client=heard/);
    await node.stop();
});

test('users that go while a listener stays open to others: refused', async () => {
    const dir = tempDir();
    const conf = join(dir, 'chronos.conf');
    const passwords = join(dir, 'passwd');
    writeFileSync(passwords, `bob:$7$101$${Buffer.alloc(12).toString('base64')}$${Buffer.alloc(64).toString('base64')}\n`);
    writeFileSync(conf, `listener 0 127.0.0.1\nlistener 0 ::\npassword_file ${passwords}\n`);
    const node = await startChronos(['--config', conf]);
    // By itself this file would do; but listeners change with a restart only.
    writeFileSync(conf, 'listener 0 127.0.0.1\n');
    await reload(node, 'settings refused');
    assert.match(node.stderr, /can be reached by others and there are no users/);
    await assert.rejects(node.client({ clientId: 'nobody' }));
    await node.stop();
});
