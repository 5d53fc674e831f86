// Users by client certificate: their roles, topics and sessions; and that nothing else says who they are.
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import mqtt from 'mqtt';
import { BIN, Chronos, run, tempDir } from './lib/chronos.mjs';
import { cleanup, test, until } from './lib/harness.mjs';
import { Authority } from './lib/certs.mjs';
import { handleAuth, Scram, scramOptions } from './lib/scram.mjs';

test('a certificate is a user: role, ACL, grants, sessions; passwords and SCRAM are not looked at', async () => {
    const dir = tempDir();
    const ca = new Authority(join(dir, 'ca'));
    const own = ca.issue('localhost', { san: 'DNS:localhost,IP:127.0.0.1' });
    const certs = { boss: ca.issue('boss', { subject: '/CN=boss' }), esp: ca.issue('esp', { subject: '/CN=esp' }) };
    const at = (name) => join(dir, name);
    assert.equal((await run(BIN, ['passwd', '-c', '-H', 'scram', '-b', at('passwd'), 'boss', 'pw-boss'])).code, 0);
    writeFileSync(at('acl'), 'user esp\ntopic readwrite esp/#\npattern readwrite own/%u/%c\n');
    const configure = (role) => writeFileSync(at('conf'), ['user_role boss admin', `user_role esp ${role}`, `password_file ${at('passwd')}`,
        `acl_file ${at('acl')}`, 'login_backoff 0', 'listener 0 127.0.0.1', `certfile ${own.crt}`, `keyfile ${own.key}`,
        `cafile ${ca.crt}`, 'require_certificate true', 'use_identity_as_username true'].join('\n') + '\n');
    configure('device');
    const chronos = new Chronos(at('data'), ['--config', at('conf')]);
    await chronos.start();
    const port = chronos.listeners.find((l) => l.kind === 'tls').port;
    const connect = (who, options = {}) => new Promise((resolve) => {
        const client = mqtt.connect(`mqtts://127.0.0.1:${port}`, { protocolVersion: 5, reconnectPeriod: 0, ca: readFileSync(ca.crt),
            cert: readFileSync(certs[who].crt), key: readFileSync(certs[who].key), ...options });
        cleanup(() => client.endAsync(true).catch(() => {}));
        if (options.handleAuth) client.handleAuth = options.handleAuth;
        client.on('connect', (packet) => resolve({ code: 0, client, present: packet.sessionPresent }));
        client.on('error', (err) => resolve({ code: err.code ?? -1 }));
    });
    const code = async (client, topic) => (await chronos.publish(client, topic, '1')).code;

    // The name in the certificate counts, whatever CONNECT says.
    const { client: esp } = await connect('esp', { clientId: 'c1', username: 'boss', password: 'pw-boss' });
    assert.equal(await code(esp, 'esp/a'), 0);
    assert.equal(await code(esp, 'own/esp/c1'), 0);
    assert.equal(await code(esp, 'boss/a'), 0x87);
    const { client: boss } = await connect('boss');
    assert.equal(await code(boss, 'boss/a'), 0, 'an admin');
    await until('the audit line', () => /denied operation=publish object=boss\/a user=esp role=device client=c1/.test(chronos.stderr));

    // Another method is not offered here, also to who has a password.
    const scram = new Scram('boss', 'pw-boss');
    assert.equal((await connect('esp', { ...scramOptions(scram), handleAuth: handleAuth(scram) })).code, 0x8c);

    // Sessions belong to the name in the certificate.
    const lasting = { clean: false, clientId: 'one', properties: { sessionExpiryInterval: 300 } };
    await (await connect('esp', lasting)).client.endAsync();
    assert.equal((await connect('esp', lasting)).present, true);
    assert.equal((await connect('boss', lasting)).present, false);

    // Roles change under open connections; the certificate needs no line in the password file to stay.
    const client = (await connect('esp', { clientId: 'sql' })).client;
    const answers = [];
    client.on('message', (topic, payload) => answers.push(JSON.parse(payload).error?.code ?? 'ok'));
    await client.subscribeAsync('$chronos/result/r', { qos: 1 });
    const ask = async () => {
        const before = answers.length;
        await client.publishAsync('$chronos/sql/r', 'SELECT count(*) FROM readings', { qos: 1 });
        await until('the answer', () => answers.length > before);
        return answers.at(-1);
    };
    assert.equal(await ask(), '42501');
    configure('readonly');
    chronos.signal('SIGHUP');
    await until('the reload', () => /settings read again/.test(chronos.stderr));
    await until('the new role', async () => (await ask()) === 'ok');
    assert.equal(await code(client, 'esp/a'), 0x87, 'readonly does not publish');
});
