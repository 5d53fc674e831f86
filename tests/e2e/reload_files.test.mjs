// SIGHUP with the files beside the config file: passwords, ACLs, certificates, limits. All or nothing, and nobody is
// disconnected.
import assert from 'node:assert/strict';
import { copyFileSync, readFileSync, writeFileSync } from 'node:fs';
import { connect } from 'node:tls';
import { join } from 'node:path';
import { X509Certificate } from 'node:crypto';
import mqtt from 'mqtt';
import { Authority, haveOpenssl } from './lib/certs.mjs';
import { BIN, run, startChronos, tempDir } from './lib/chronos.mjs';
import { cleanup, skip, test, until } from './lib/harness.mjs';

const count = (text, what) => text.split(what).length - 1;

/** SIGHUP, and wait until the node has said what came of it; the line that says it. */
async function reload(node, outcome) {
    const before = count(node.stderr, outcome);
    node.signal('SIGHUP');
    await until(`"${outcome}" in\n${node.stderr}`, () => count(node.stderr, outcome) > before);
    return node.stderr.split('\n').filter((line) => line.includes(outcome)).at(-1);
}
const taken = (node) => reload(node, 'settings read again');
const refused = (node) => reload(node, 'settings refused, the old ones stay in force');

/** What there is of one node, written anew by each change. */
class Files {
    constructor() {
        this.dir = tempDir();
        this.conf = join(this.dir, 'chronos.conf');
        this.acl = join(this.dir, 'acl');
        this.passwd = join(this.dir, 'passwd');
        this.crt = join(this.dir, 'node.crt');
        this.key = join(this.dir, 'node.key');
        this.settings = { log_level: 'notice', max_queued_messages: '3' };
        this.ca = new Authority(join(this.dir, 'ca'));
    }
    writeSettings(more = '') {
        writeFileSync(this.conf, [
            ...Object.entries(this.settings).map(([k, v]) => `${k} ${v}`),
            `password_file ${this.passwd}`, `acl_file ${this.acl}`, 'login_backoff 0', more,
            'listener 0 127.0.0.1', `certfile ${this.crt}`, `keyfile ${this.key}`, '',
        ].join('\n'));
    }
    async writePassword(user, password, more = []) {
        const made = await run(BIN, ['passwd', '-b', ...more, this.passwd, user, password]);
        assert.equal(made.code, 0, made.stderr);
    }
    writeCertificate(name) {
        const made = this.ca.issue(name, { subject: `/CN=${name}`, san: 'IP:127.0.0.1' });
        copyFileSync(made.crt, this.crt);
        copyFileSync(made.key, this.key);
    }
}

/** The reason code of CONNACK: 0 when let in. */
function login(node, username, password) {
    return new Promise((resolve) => {
        const client = mqtt.connect(node.url(), { protocolVersion: 5, reconnectPeriod: 0, username, password });
        const end = (code) => {
            client.end(true);
            resolve(code);
        };
        client.on('connect', () => end(0));
        client.on('error', (err) => end(err.code ?? -1));
    });
}

/** The common name of the certificate that a new TLS connection sees. */
function certificateName(node, files) {
    return new Promise((resolve, reject) => {
        const socket = connect({ host: '127.0.0.1', port: node.listeners[0].port, ca: readFileSync(files.ca.crt) }, () => {
            resolve(new X509Certificate(socket.getPeerCertificate(true).raw).subject);
            socket.destroy();
        });
        socket.on('error', reject);
    });
}

async function startNode() {
    if (!haveOpenssl) skip('no openssl command here');
    const files = new Files();
    await files.writePassword('alice', 'old', ['-c']);
    writeFileSync(files.acl, 'user alice\ntopic readwrite data/#\n');
    files.writeCertificate('first');
    files.writeSettings();
    const node = await startChronos(['--config', files.conf]);
    const closed = [];
    const watch = (name, client) => {
        client.on('close', () => closed.push(name));
        client.on('error', () => {});
        cleanup(() => client.endAsync(true).catch(() => {}));
        return client;
    };
    const as = { username: 'alice', password: 'old', protocolVersion: 5, reconnectPeriod: 0 };
    const plain = watch('plain', await mqtt.connectAsync(node.url(), { ...as, clientId: 'plain' }));
    const tls = watch('tls', await mqtt.connectAsync(`mqtts://127.0.0.1:${node.listeners[0].port}`,
        { ...as, clientId: 'tls', ca: readFileSync(files.ca.crt) }));
    return { files, node, plain, tls, closed };
}

test('passwords, ACLs, certificates, limits and log level change under connected clients', async () => {
    const { files, node, plain, tls, closed } = await startNode();
    const got = [];
    tls.on('message', (topic, payload) => got.push(`${topic} ${payload}`));
    await tls.subscribeAsync('data/#', { qos: 1 });
    assert.equal((await node.publish(plain, 'data/a', '1')).code, 0);
    assert.equal((await node.publish(plain, 'other/a', '1')).code, 0x87);
    assert.equal(await certificateName(node, files), 'CN=first');
    await until('the message', () => got.length === 1);

    await files.writePassword('bob', 'new');
    writeFileSync(files.acl, 'user alice\ntopic readwrite other/#\ntopic read data/#\nuser bob\ntopic readwrite data/#\n');
    files.writeCertificate('second');
    files.settings.log_level = 'info';
    files.settings.max_queued_messages = '2';
    files.writeSettings();
    const line = await taken(node);
    assert.match(line, /changed=2 /);
    assert.match(line, /log_level/);
    assert.match(line, /max_queued_messages/);

    // Those who are connected have the new rules, and their connections.
    assert.equal((await node.publish(plain, 'data/b', '2')).code, 0x87);
    assert.equal((await node.publish(plain, 'other/b', '2')).code, 0);
    // Those who come have the new files.
    assert.equal(await login(node, 'bob', 'new'), 0);
    assert.equal(await certificateName(node, files), 'CN=second');
    const bob = await node.client({ clientId: 'bob', username: 'bob', password: 'new' });
    await until('a line of log_level info', () => /client connected client=bob/.test(node.stderr));
    assert.equal((await node.publish(bob, 'data/c', '3')).code, 0);
    await until('the message', () => got.length === 2);
    assert.deepEqual(got, ['data/a 1', 'data/c 3']);

    // A limit: a session that is away keeps two messages now.
    const away = { clientId: 'away', username: 'bob', password: 'new', clean: false,
        properties: { sessionExpiryInterval: 100 } };
    let waiting = await node.client(away);
    await waiting.subscribeAsync('data/q', { qos: 1 });
    await waiting.endAsync();
    for (const payload of ['1', '2', '3', '4']) assert.equal((await node.publish(bob, 'data/q', payload)).code, 0);
    const kept = [];
    waiting = mqtt.connect(node.url(), { ...away, protocolVersion: 5, reconnectPeriod: 0 });
    cleanup(() => waiting.endAsync(true).catch(() => {}));
    waiting.on('message', (topic, payload) => kept.push(String(payload)));
    await until('CONNACK', () => waiting.connected);
    await node.publish(bob, 'data/q', 'end');
    await until('the last message', () => kept.includes('end'));
    assert.deepEqual(kept, ['1', '2', 'end']);

    assert.deepEqual(closed, []);
    await node.stop();
});

test('a mistake in any of the files changes nothing at all, and says where it is', async () => {
    const { files, node, plain, tls, closed } = await startNode();
    const good = { acl: readFileSync(files.acl, 'utf8'), passwd: readFileSync(files.passwd, 'utf8') };
    const changed = () => {
        // Good changes everywhere, which must not be taken as long as one file is bad.
        writeFileSync(files.acl, 'user alice\ntopic readwrite other/#\n');
        files.settings.log_level = 'debug';
        files.writeSettings();
    };
    const asBefore = async () => {
        assert.equal((await node.publish(plain, 'data/a', '1')).code, 0);
        assert.equal((await node.publish(tls, 'other/a', '1')).code, 0x87);
        assert.equal(await login(node, 'alice', 'old'), 0);
        assert.notEqual(await login(node, 'bob', 'new'), 0);
        assert.equal(await certificateName(node, files), 'CN=first');
        assert.equal(count(node.stderr, ' debug '), 0);
        assert.deepEqual(closed, []);
    };

    changed();
    writeFileSync(files.acl, '# rules\nuser alice\ntopik readwrite other/#\n');
    assert.ok((await refused(node)).includes(`${files.acl}:3: `), node.stderr);
    await asBefore();

    changed();
    writeFileSync(files.passwd, good.passwd + 'bob\n');
    assert.ok((await refused(node)).includes(`${files.passwd}:2: `), node.stderr);
    await asBefore();
    writeFileSync(files.passwd, good.passwd);

    changed();
    const first = readFileSync(files.key);
    files.writeCertificate('second');
    writeFileSync(files.key, first);
    const line = await refused(node);
    assert.ok(line.includes(`${files.conf}:`) && /certfile|keyfile/.test(line), line);
    await asBefore();

    files.writeCertificate('second');
    changed();
    files.writeSettings('hot_limt 1GiB');
    assert.match(await refused(node), /chronos\.conf:6: unknown key hot_limt; did you mean hot_limit\?/);
    await asBefore();

    changed();
    await taken(node);
    assert.equal((await node.publish(plain, 'data/a', '1')).code, 0x87);
    assert.equal((await node.publish(tls, 'other/a', '1')).code, 0);
    assert.equal(await certificateName(node, files), 'CN=second');
    assert.deepEqual(closed, []);
    await node.stop();
});

/** CONNACK's properties, with the client; null when the connection was closed instead. */
function tryConnect(port, clientId) {
    return new Promise((resolve) => {
        const client = mqtt.connect(`mqtt://127.0.0.1:${port}`, { protocolVersion: 5, reconnectPeriod: 0, clientId });
        cleanup(() => client.endAsync(true).catch(() => {}));
        client.on('error', () => {});
        client.on('connect', (packet) => resolve({ client, ...packet.properties }));
        client.on('close', () => resolve(null));
    });
}

test('limits of the node and of a listener change; who is connected stays', async () => {
    const dir = tempDir();
    const conf = join(dir, 'chronos.conf');
    const write = (node, listener) => writeFileSync(conf, [...node, 'listener 0 127.0.0.1', ...listener, ''].join('\n'));
    write(['max_connections 2', 'max_retained_messages 1'],
        ['max_connections 1', 'listener_max_packet_size 1000', 'max_topic_alias 3', 'max_qos 2']);
    const node = await startChronos(['--config', conf]);
    const other = node.listeners[0].port;
    const closed = [];
    const a = await node.client({ clientId: 'a' });
    const b = await tryConnect(other, 'b');
    /** How many messages are kept after this one. */
    const keep = async (topic) => {
        assert.equal((await node.publish(a, topic, 'x', { retain: true })).code, 0);
        const got = [];
        const listen = (t, payload, packet) => got.push(packet.retain ? t : 'live');
        b.client.on('message', listen);
        await b.client.subscribeAsync('kept/#', { qos: 1 });
        await node.publish(a, 'kept/end', 'x');
        await until('the message after those that are kept', () => got.includes('live'));
        await b.client.unsubscribeAsync('kept/#');
        b.client.off('message', listen);
        return got.length - 1;
    };
    for (const client of [a, b.client]) client.on('close', () => closed.push(client.options.clientId));
    assert.equal(b.maximumPacketSize, 1000);
    assert.equal(b.topicAliasMaximum, 3);
    assert.equal(await tryConnect(other, 'c'), null);
    assert.equal(await keep('kept/1'), 1);
    assert.equal(await keep('kept/2'), 1); // delivered, not kept

    write(['max_connections 3', 'max_retained_messages 2'],
        ['max_connections 2', 'listener_max_packet_size 2000', 'max_topic_alias 7', 'max_qos 1']);
    const line = await taken(node);
    for (const name of ['max_connections', 'max_retained_messages', 'listener_max_packet_size', 'max_topic_alias'])
        assert.ok(line.includes(name), line);
    assert.match(node.stderr, /settings that need a restart keep their values settings=max_qos/);
    const c = await tryConnect(other, 'c');
    assert.deepEqual([c.maximumPacketSize, c.topicAliasMaximum, c.maximumQoS], [2000, 7, undefined]);
    assert.equal(await tryConnect(node.port, 'd'), null);
    assert.equal(await keep('kept/2'), 2);
    assert.equal(await keep('kept/3'), 2);

    // Below what is there: nobody goes, nobody comes, what is kept stays.
    write(['max_connections 1', 'max_retained_messages 0'], ['max_connections 2', 'listener_max_packet_size 2000', 'max_topic_alias 7']);
    await taken(node);
    assert.equal(await tryConnect(node.port, 'd'), null);
    assert.equal((await node.publish(b.client, 'plain', 'x')).code, 0);
    assert.equal(await keep('kept/2'), 2);
    assert.equal(await keep('kept/4'), 2);
    assert.deepEqual(closed, []);
    await node.stop();
});
