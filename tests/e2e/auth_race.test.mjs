// Logins that are being verified while the files change.
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import mqtt from 'mqtt';
import { BIN, Chronos, run, tempDir } from './lib/chronos.mjs';
import { Authority } from './lib/certs.mjs';
import { cleanup, test, until } from './lib/harness.mjs';

test('who was removed while the password was being verified does not stay', async () => {
    const dir = tempDir();
    const passwd = join(dir, 'passwd');
    assert.equal((await run(BIN, ['passwd', '-c', '-b', passwd, 'other', 'pw'])).code, 0);
    const kept = readFileSync(passwd, 'utf8');
    // Slow enough that most of them wait when the first is in.
    const slow = await run('argon2', ['0123456789abcdef', '-id', '-t', '20', '-m', '14', '-p', '1', '-e'], { input: 'pw' });
    assert.equal(slow.code, 0, slow.stderr);
    writeFileSync(passwd, kept + `late:${slow.stdout.trim()}\n`);
    const chronos = new Chronos(join(dir, 'data'), ['--password-file', passwd]);
    await chronos.start();
    const clients = Array.from({ length: 24 }, (_, i) => {
        const client = mqtt.connect(chronos.url(), { protocolVersion: 5, reconnectPeriod: 0, username: 'late', password: 'pw', clientId: `late-${i}`,
            clean: i % 2 === 0, properties: { sessionExpiryInterval: i % 2 ? 60 : 0 } });
        cleanup(() => client.endAsync(true).catch(() => {}));
        const state = { gone: false, in: false };
        client.on('connect', () => { state.in = true; });
        client.on('error', () => {});
        client.on('close', () => { state.gone = true; });
        return state;
    });
    await until('the first is in', () => clients.some((c) => c.in));
    writeFileSync(passwd, kept);
    chronos.signal('SIGHUP');
    await until('the reload', () => /settings read again/.test(chronos.stderr));
    await until('all are gone', () => clients.every((c) => c.gone));
});

test('a certificate is not let in by the name of a token', async () => {
    const ca = new Authority(join(tempDir(), 'ca'));
    const own = ca.issue('localhost', { san: 'DNS:localhost,IP:127.0.0.1' });
    const conf = join(tempDir(), 'conf');
    writeFileSync(conf, ['listener 0 127.0.0.1', 'listener 0 127.0.0.1', `certfile ${own.crt}`, `keyfile ${own.key}`, `cafile ${ca.crt}`,
        'require_certificate true', 'use_identity_as_username true'].join('\n') + '\n');
    const chronos = new Chronos(join(tempDir(), 'data'), ['--config', conf]);
    await chronos.start();
    const { port } = chronos.listeners.find((l) => l.kind === 'tls');
    const login = ({ crt, key }) => new Promise((resolve) => {
        const client = mqtt.connect(`mqtts://localhost:${port}`, { protocolVersion: 5, reconnectPeriod: 0,
            ca: readFileSync(ca.crt), cert: readFileSync(crt), key: readFileSync(key) });
        cleanup(() => client.endAsync(true).catch(() => {}));
        client.on('connect', () => resolve(0));
        client.on('error', (err) => resolve(err.code ?? -1));
    });
    assert.equal(await login(ca.issue('mac', { subject: '/CN=00:1b:63:84:45:e6' })), 0);
    assert.equal(await login(ca.issue('token', { subject: '/CN=token:admin' })), 0x86);
    assert.equal(await login(ca.issue('prompt', { subject: '/CN=chronos:prompt' })), 0x86);
    assert.match(chronos.stderr, /login refused.*user="?token:admin/);
});
