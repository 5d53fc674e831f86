// One mosquitto.conf with its password file, ACL file and certificates, given to Mosquitto and then, unchanged, to Chronos:
// the same clients do the same things, and see the same.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import mqtt from 'mqtt';
import { Authority } from './lib/certs.mjs';
import { BIN, run, tempDir } from './lib/chronos.mjs';
import { cleanup, skip, test, until } from './lib/harness.mjs';
import { freePorts, isFree } from './lib/port.mjs';

const MOSQUITTO = ['/usr/sbin/mosquitto', '/usr/local/sbin/mosquitto'].find(existsSync);

// ---- Files ------------------------------------------------------------------------------------------------------

const ACL = `# before the first user line: clients without a name
topic read plant/open/#
topic write plant/inbox

pattern readwrite plant/units/%u/#
pattern write plant/clients/%c

user alice
topic readwrite #
topic read $SYS/#

user viewer
topic read plant/#
topic deny plant/hidden/#
topic write plant/with a blank/#

user unit7.example
topic readwrite plant/tls/#
`;

const USERS = { alice: 'pw: with # and blank', viewer: 'v', unit1: 'u1' };

/** Writes everything; {conf, ports, ca, device}. */
async function writeFiles(anonymous) {
    const dir = tempDir();
    const [plain, qos1, tls] = await freePorts(3);
    const ca = new Authority(join(dir, 'ca'));
    const server = ca.issue('server', { subject: '/CN=127.0.0.1', san: 'IP:127.0.0.1' });
    const device = ca.issue('device', { subject: '/O=Farm/CN=unit7.example' });
    const passwd = join(dir, 'passwd'), acl = join(dir, 'acl'), conf = join(dir, 'mosquitto.conf');
    writeFileSync(passwd, '');
    for (const [user, password] of Object.entries(USERS)) {
        const made = await run('mosquitto_passwd', ['-b', passwd, user, password]);
        assert.equal(made.code, 0, made.stderr);
    }
    writeFileSync(acl, ACL);
    mkdirSync(join(dir, 'conf.d'));
    mkdirSync(join(dir, 'state'));
    writeFileSync(join(dir, 'conf.d', '10-limits.conf'), [
        'max_inflight_messages 20', 'max_queued_messages 5', 'max_queued_bytes 0', 'max_packet_size 2000',
        'max_keepalive 60', 'message_size_limit 0', 'memory_limit 0', 'max_inflight_bytes 0', '',
    ].join('\n'));
    writeFileSync(conf, `# A broker as it has been running for years.
per_listener_settings false
user root
pid_file ${dir}/broker.pid

persistence true
persistence_location ${dir}/state/
persistence_file old.db
autosave_interval 300
autosave_on_changes false
persistent_client_expiration 1d

retain_available true
sys_interval 1
set_tcp_nodelay true
upgrade_outgoing_qos false
queue_qos0_messages false
check_retain_source false
allow_duplicate_messages false

allow_zero_length_clientid true
auto_id_prefix made-

log_dest stderr
log_dest file ${dir}/broker.log
log_type error
log_type warning
log_type notice
log_type information
log_timestamp true
log_timestamp_format %Y-%m-%dT%H:%M:%S
connection_messages true

allow_anonymous ${anonymous}
password_file ${passwd}
acl_file ${acl}

include_dir ${dir}/conf.d

listener ${plain} 127.0.0.1
max_connections 50
max_topic_alias 5
socket_domain ipv4

listener ${qos1} 127.0.0.1
max_qos 1
max_connections -1

listener ${tls} 127.0.0.1
protocol mqtt
cafile ${ca.crt}
certfile ${server.crt}
keyfile ${server.key}
tls_version tlsv1.2
require_certificate true
use_identity_as_username true
`);
    return { dir, conf, log: join(dir, 'broker.log'), pid: join(dir, 'broker.pid'), plain, qos1, tls, ca, device };
}

// ---- The two brokers ----------------------------------------------------------------------------------------------

/** Starts one; null when another process has taken a port in the meantime. */
async function startBroker(file, args, files) {
    const child = spawn(file, args, { stdio: ['ignore', 'ignore', 'pipe'] });
    const broker = { child, stderr: '' };
    child.stderr.setEncoding('utf8').on('data', (text) => (broker.stderr += text));
    broker.exited = new Promise((resolve) => child.on('exit', (code, signal) => resolve({ code, signal })));
    broker.stop = async () => {
        if (child.exitCode === null && child.signalCode === null) child.kill('SIGTERM');
        return broker.exited;
    };
    cleanup(async () => {
        child.kill('SIGKILL');
        await broker.exited;
    });
    let ended = false;
    broker.exited.then(() => (ended = true));
    for (const port of [files.plain, files.qos1, files.tls])
        await until(`port ${port} of ${file}\n${broker.stderr}`, async () => ended || !(await isFree(port)));
    if (!ended) return broker;
    if (/Address already in use|address in use/i.test(broker.stderr)) return null;
    throw new Error(`${file} did not start:\n${broker.stderr}`);
}

const brokers = {
    mosquitto: (files) => startBroker(MOSQUITTO, ['-c', files.conf], files),
    chronos: (files) => startBroker(BIN, ['single-node', '--config', files.conf, '--data-dir', join(files.dir, 'data'),
        '--admin-address', '127.0.0.1:0'], files),
};

// ---- What clients do ----------------------------------------------------------------------------------------------

/** Words of the tools that name a process, a number or a time are left out. */
const said = (text) => text.split('\n').filter(Boolean)
    .map((line) => line.replace(/^\d+: /, '').replace(/\d{4,}/g, 'N')).join(' | ');

function clients(files) {
    const login = (user) => (user ? ['-u', user, '-P', USERS[user] ?? 'none'] : []);
    const at = (port) => ['-h', '127.0.0.1', '-p', String(port)];

    async function pub(user, topic, payload, more = [], port = files.plain) {
        const r = await run('mosquitto_pub', [...at(port), ...login(user), '-t', topic, '-m', payload, ...more], { timeoutMs: 15000 });
        return { code: r.code, said: said(r.stderr) };
    }

    /** A subscriber that ends with its n-th message; {got, a promise of all of it, has(n)} once its subscriptions are answered. */
    async function sub(user, filters, count, more = [], port = files.plain) {
        const args = ['-oL', 'mosquitto_sub', ...at(port), ...login(user), ...filters.flatMap((f) => ['-t', f]), '-C', String(count), '-W', '20', '-d',
            '-F', 'GOT %t q%q r%r %p', ...more];
        const child = spawn('stdbuf', args, { stdio: ['ignore', 'pipe', 'pipe'] });
        cleanup(() => child.kill('SIGKILL'));
        let out = '', err = '', ended = false;
        child.stdout.setEncoding('utf8').on('data', (t) => (out += t));
        child.stderr.setEncoding('utf8').on('data', (t) => (err += t));
        const got = new Promise((resolve) => child.on('close', (code) => {
            ended = true;
            resolve({ code, lines: lines(), said: said(err) });
        }));
        const lines = () => out.split('\n').filter((l) => l.startsWith('GOT ')).map((l) => l.slice(4));
        await until('SUBACK', () => ended || out.includes('Subscribed (mid'));
        return { got, has: (n) => until(`message ${n}`, () => ended || lines().length >= n) };
    }

    /** Reason code and properties of CONNACK. */
    async function connack(user, options = {}, port = files.plain) {
        return new Promise((resolve) => {
            const client = mqtt.connect(`mqtt://127.0.0.1:${port}`, {
                protocolVersion: 5, reconnectPeriod: 0, username: user || undefined,
                password: user ? (options.password ?? USERS[user] ?? 'none') : undefined, ...options,
            });
            const end = (value) => {
                client.end(true);
                resolve(value);
            };
            client.on('connect', (p) => end({ code: 0, ...p.properties }));
            client.on('error', (e) => end({ code: e.code ?? -1 }));
        });
    }
    return { login, at, pub, sub, connack };
}

const PUBLISHER = (user) => ['-i', `p-${user}`];

const V = (v) => ['-V', v];

/** Whatever the code of a refused login: 3.1.1 has 4 and 5, 5.0 has 134 and 135. */
const refusal = ({ code }) => ({ refused: [4, 5, 134, 135].includes(code) });

/** Everything, in order; [name, what was seen]. */
async function script(files) {
    const { at, pub, sub, connack, login } = clients(files);
    const seen = [];
    const see = (name, value) => seen.push([name, value]);

    for (const v of ['311', '5']) {
        see(`${v}: right password`, await pub('alice', 'plant/a', 'x', [...V(v), '-q', '1']));
        // Mosquitto's code is "not authorized" here; ours the one that the standards have for it.
        see(`${v}: wrong password`, refusal(await pub('alice', 'plant/a', 'x', [...V(v), '-P', 'wrong'])));
        see(`${v}: empty password`, refusal(await pub('alice', 'plant/a', 'x', [...V(v), '-P', ''])));
        see(`${v}: unknown user`, refusal(await pub('nobody', 'plant/a', 'x', V(v))));
        see(`${v}: anonymous`, await pub('', 'plant/inbox', 'x', V(v)));
        for (const q of ['0', '1', '2']) {
            see(`${v}: QoS ${q}, allowed`, await pub('unit1', 'plant/units/unit1/t', 'x', [...V(v), '-q', q]));
            see(`${v}: QoS ${q}, denied`, await pub('unit1', 'plant/units/unit2/t', 'x', [...V(v), '-q', q]));
        }
        see(`${v}: pattern of the client id`, await pub('unit1', 'plant/clients/c9', 'x', [...V(v), '-q', '1', '-i', 'c9']));
        see(`${v}: pattern of another client id`, await pub('unit1', 'plant/clients/c9', 'x', [...V(v), '-q', '1', '-i', 'c8']));
        see(`${v}: a topic with a blank`, await pub('viewer', 'plant/with a blank/x', 'x', [...V(v), '-q', '1']));

        // Who sees what: one that may see everything, and one that may not; a last message ends both.
        const all = await sub('alice', ['plant/#'], 5, [...V(v), '-q', '2']);
        const some = await sub('viewer', ['plant/#'], 3, [...V(v), '-q', '1']);
        await pub('unit1', 'plant/units/unit1/t', '1', [...V(v), '-q', '0', ...PUBLISHER('unit1')]);
        await Promise.all([all.has(1), some.has(1)]);
        await pub('unit1', 'plant/units/unit2/t', 'never', [...V(v), '-q', '1', ...PUBLISHER('unit1')]);
        await pub('alice', 'plant/hidden/x', '2', [...V(v), '-q', '1', ...PUBLISHER('alice')]);
        await pub('viewer', 'plant/open/x', 'never', [...V(v), '-q', '1', ...PUBLISHER('viewer')]);
        await pub('alice', 'plant/open/x', '3', [...V(v), '-q', '2', ...PUBLISHER('alice')]);
        await pub('alice', 'plant/hidden/y', '4', [...V(v), '-q', '2', ...PUBLISHER('alice')]);
        await pub('alice', 'plant/end', '5', [...V(v), '-q', '1', ...PUBLISHER('alice')]);
        see(`${v}: what may be read is delivered`, await all.got);
        see(`${v}: what may not be read is not`, await some.got);

        // Retained messages follow the same rules.
        await pub('alice', 'plant/kept/a', 'a', [...V(v), '-q', '1', '-r']);
        await pub('alice', 'plant/hidden/b', 'b', [...V(v), '-q', '1', '-r']);
        await pub('viewer', 'plant/kept/c', 'never', [...V(v), '-q', '1', '-r']);
        see(`${v}: retained`, await (await sub('viewer', ['plant/kept/#', 'plant/hidden/#'], 1, V(v))).got);
        see(`${v}: retained, all`, (await (await sub('alice', ['plant/kept/#', 'plant/hidden/#'], 2, V(v))).got).lines.sort());
        await pub('alice', 'plant/kept/a', '', [...V(v), '-q', '1', '-r']);
        await pub('alice', 'plant/hidden/b', '', [...V(v), '-q', '1', '-r']);

        // A session that is away keeps max_queued_messages of them, and none of QoS 0.
        const session = [...V(v), '-i', `away${v}`, '-q', '1', '-c', ...(v === '5' ? ['-x', '3600'] : [])];
        const away = await run('mosquitto_sub', [...at(files.plain), ...login('viewer'), '-t', 'plant/open/#', '-E', ...session]);
        see(`${v}: a session begins`, { code: away.code, said: said(away.stderr) });
        for (let i = 1; i <= 8; i++) await pub('alice', 'plant/open/q', String(i), [...V(v), '-q', i === 2 ? '0' : '1']);
        const back = await sub('viewer', ['plant/open/#'], 6, session);
        await pub('alice', 'plant/open/q', 'end', [...V(v), '-q', '1']);
        see(`${v}: a session is resumed`, (await back.got).lines);
        // And it ends.
        await run('mosquitto_sub', [...at(files.plain), ...login('viewer'), ...V(v), '-t', 'x', '-E', '-i', `away${v}`]);

        see(`${v}: TLS with a certificate, allowed`, await pub('', 'plant/tls/x', 'x',
            [...V(v), '-q', '1', '--cafile', files.ca.crt, '--cert', files.device.crt, '--key', files.device.key], files.tls));
        see(`${v}: TLS with a certificate, denied`, await pub('', 'plant/other', 'x',
            [...V(v), '-q', '1', '--cafile', files.ca.crt, '--cert', files.device.crt, '--key', files.device.key], files.tls));
        const without = await pub('', 'plant/tls/x', 'x', [...V(v), '-q', '1', '--cafile', files.ca.crt], files.tls);
        see(`${v}: TLS without a certificate`, without.code !== 0);
    }

    // MQTT 5: what a listener tells its clients, and what it refuses.
    const told = ({ code, maximumPacketSize, serverKeepAlive, maximumQoS, topicAliasMaximum, assignedClientIdentifier }) =>
        ({ code, maximumPacketSize, serverKeepAlive, maximumQoS, topicAliasMaximum, made: assignedClientIdentifier?.slice(0, 5) });
    see('CONNACK', told(await connack('alice', { clientId: '', keepalive: 600 })));
    see('CONNACK of max_qos 1', { maximumQoS: (await connack('alice', { clientId: 'q' }, files.qos1)).maximumQoS });
    see('CONNACK, wrong password', refusal(await connack('alice', { clientId: 'w', password: 'wrong' })));
    see('CONNACK, anonymous', { code: (await connack('', { clientId: 'n' })).code });
    see('QoS 2 where 1 is the most', await pub('alice', 'plant/a', 'x', [...V('5'), '-q', '2'], files.qos1));
    see('a packet beyond max_packet_size', await pub('alice', 'plant/a', 'x'.repeat(3000), [...V('5'), '-q', '1']));
    see('$SYS', (await (await sub('alice', ['$SYS/broker/uptime'], 1, V('5'))).got).lines.length);

    return seen;
}

/** Clients without a name: what stands before the first user of the ACL file. */
async function anonymousScript(files) {
    const { pub, sub, connack } = clients(files);
    const seen = [];
    const see = (name, value) => seen.push([name, value]);
    for (const v of ['311', '5']) {
        see(`${v}: allowed`, await pub('', 'plant/inbox', 'x', [...V(v), '-q', '1']));
        see(`${v}: denied`, await pub('', 'plant/open/x', 'x', [...V(v), '-q', '1']));
        see(`${v}: wrong password`, refusal(await pub('alice', 'plant/inbox', 'x', [...V(v), '-P', 'wrong'])));
        const some = await sub('', ['plant/#'], 1, [...V(v), '-q', '1']);
        await pub('', 'plant/inbox', 'unseen', [...V(v), '-q', '1']);
        await pub('alice', 'plant/a', 'unseen', [...V(v), '-q', '1']);
        await pub('alice', 'plant/open/x', 'seen', [...V(v), '-q', '1']);
        see(`${v}: delivered`, await some.got);
    }
    see('CONNACK', { code: (await connack('', { clientId: 'n' })).code });
    return seen;
}

async function both(anonymous, script) {
    if (!MOSQUITTO) skip('no mosquitto here');
    for (let attempt = 0; ; attempt++) {
        const files = await writeFiles(anonymous);
        const seen = {};
        for (const [name, start] of Object.entries(brokers)) {
            const broker = await start(files);
            if (!broker) break;
            seen[name] = await script(files);
            assert.equal((await broker.stop()).code, 0, broker.stderr);
            seen[`${name} log`] = readFileSync(files.log, 'utf8');
        }
        if (seen.chronos || attempt === 3) return seen;
    }
}

function compare(seen) {
    const differences = [];
    assert.equal(seen.mosquitto.length, seen.chronos.length);
    seen.mosquitto.forEach(([name, value], i) => {
        const other = seen.chronos[i][1];
        if (JSON.stringify(value) !== JSON.stringify(other))
            differences.push(`${name}\n    mosquitto ${JSON.stringify(value)}\n    chronos   ${JSON.stringify(other)}`);
    });
    assert.deepEqual(differences, [], differences.join('\n'));
    return Object.fromEntries(seen.mosquitto);
}

test('one mosquitto.conf, two brokers: users only', async () => {
    const seen = await both(false, script);
    const of = compare(seen);
    // The script does meet what it is about.
    assert.equal(of['5: right password'].code, 0);
    assert.equal(of['5: wrong password'].refused, true);
    assert.notEqual(of['311: anonymous'].code, 0);
    assert.match(of['5: QoS 1, denied'].said, /Not authorized/i);
    assert.deepEqual(of['5: what may not be read is not'].lines, ['plant/units/unit1/t q0 r0 1', 'plant/open/x q1 r0 3', 'plant/end q1 r0 5']);
    assert.equal(of['5: a session is resumed'].length, 6);
    assert.equal(of.CONNACK.serverKeepAlive, 60);
    assert.match(seen['chronos log'], /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d/m);
}, { timeoutMs: 180000 });

test('one mosquitto.conf, two brokers: anonymous clients, too', async () => {
    const of = compare(await both(true, anonymousScript));
    assert.deepEqual(of['5: allowed'], { code: 0, said: '' });
    assert.match(of['5: denied'].said, /Not authorized/i);
    assert.deepEqual(of['5: delivered'].lines, ['plant/open/x q1 r0 seen']);
}, { timeoutMs: 180000 });
