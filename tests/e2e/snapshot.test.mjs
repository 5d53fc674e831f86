// Backups: taken of a node under load, restored elsewhere, refused when anything is wrong with them.
import assert from 'node:assert/strict';
import { copyFileSync, existsSync, mkdirSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test, cleanup, until } from './lib/harness.mjs';
import { BIN, Chronos, run, tempDir } from './lib/chronos.mjs';
import { Cluster, sameRows } from './lib/cluster.mjs';

const LIMITS = ['--hot-limit', '2MiB', '--checkpoint-log-bytes', '4MiB'];
const create = (dir, file, ...more) =>
    run(BIN, ['snapshot', 'create', '--data-dir', dir, '--output', file, ...more], { timeoutMs: 120000 });
const restore = (dir, file, ...more) =>
    run(BIN, ['snapshot', 'restore', '--data-dir', dir, '--input', file, ...more], { timeoutMs: 120000 });
const compare = (here, there, ...more) =>
    run(BIN, ['check', '--data-dir', here, '--against', there, ...more], { timeoutMs: 120000 });
const meta = (dir) => Object.fromEntries(readFileSync(join(dir, 'node.meta'), 'utf8').trim().split('\n').map((l) => l.split(' ')));

async function clean(dir) {
    const { code, stdout, stderr } = await run(BIN, ['check', '--data-dir', dir], { timeoutMs: 120000 });
    assert.equal(code, 0, stdout + stderr);
}

async function startAgain(node) {
    node.stderr = '';
    return node.start();
}

async function ok(promise) {
    const result = await promise;
    assert.equal(result.code, 0, result.stdout + result.stderr);
    return result;
}

/** A node with tables, a persistent session that has messages waiting, and retained messages. */
async function furnished(dir, args = []) {
    const node = await new Chronos(dir, [...LIMITS, ...args]).start();
    await node.rows("CREATE TABLE env (site STRING, device STRING, ts TIMESTAMP, v FLOAT, PRIMARY KEY (device, ts)) WITH TOPIC='farm/{site}/{device}'");
    await node.rows("INSERT INTO env VALUES ('a', 'd1', '2024-01-01T00:00:00Z', 1.5), ('a', 'd2', '2024-01-01T00:00:00Z', 2.5)");
    await node.rows("DELETE FROM env WHERE device = 'd2'");
    const keeper = await node.client({ clientId: 'keeper', clean: false, properties: { sessionExpiryInterval: 100000 } });
    await keeper.subscribeAsync('news/#', { qos: 1 });
    await keeper.endAsync();
    const client = await node.client();
    for (let i = 0; i < 5; i++) await client.publishAsync('news/today', `item ${i}`, { qos: 1 });
    await client.publishAsync('state/door', 'open', { qos: 1, retain: true });
    return { node, client };
}

/** Publishes until it is stopped; resolves to how many were acknowledged. */
function load(client) {
    let stopped = false, sent = 0, acked = 0;
    const running = (async () => {
        while (!stopped)
            await Promise.all(Array.from({ length: 200 }, () =>
                client.publishAsync(`sensors/d${sent % 50}/n`, String(sent++), { qos: 1 }).then(() => acked++)));
    })();
    return { acked: () => acked, stop: async () => { stopped = true; await running; return acked; } };
}

test('created under load, restored elsewhere: the state of one moment', async () => {
    const dir = tempDir(), file = join(dir, 'backup.snap');
    const { node, client } = await furnished(join(dir, 'a'));
    const traffic = load(client);
    await until('some load', () => traffic.acked() > 20000, 60000);
    const before = traffic.acked();
    const made = await ok(create(node.dataDir, file));
    const after = traffic.acked();
    assert.match(made.stdout, /state up to entry \d+/);
    await until('more load', () => traffic.acked() > after + 2000, 60000);
    await traffic.stop();
    assert.equal(statSync(file).mode & 0o777, 0o600);

    const copy = join(dir, 'b');
    const restored = await ok(restore(copy, file));
    assert.match(restored.stdout, /a cluster of one/);
    await clean(copy);
    const [was, is] = [meta(node.dataDir), meta(copy)];
    assert.notEqual(is.incarnation, was.incarnation);
    assert.notEqual(is.cluster, was.cluster);
    assert.equal(is.log_fork, /entry (\d+)/.exec(made.stdout)[1]);
    assert.match(is.log_parent, /^[0-9a-f]{16}$/);

    const second = await new Chronos(copy, LIMITS).start();
    // One client sends in order: what is there is a beginning of what it sent.
    const [[count, distinct, max]] = await second.rows('SELECT count(*), count(DISTINCT value), max(value) FROM readings');
    assert.ok(count >= before, `${count} rows, ${before} acknowledged before`);
    assert.equal(count, distinct);
    assert.ok(max >= count - 1 && max < count + 400, `${count} rows up to ${max}`);
    assert.deepEqual(await second.rows('SELECT device, v FROM env'), [['d1', 1.5]]);
    const news = [];
    const keeper = await second.client({ clientId: 'keeper', clean: false, onMessage: (t, p) => news.push(`${t} ${p}`),
        properties: { sessionExpiryInterval: 100000 } });
    await until('the queue', () => news.length >= 5);
    assert.deepEqual(news, [0, 1, 2, 3, 4].map((i) => `news/today item ${i}`));
    await keeper.subscribeAsync('state/#', { qos: 1 });
    await until('what is retained', () => news.includes('state/door open'));
    // It takes new readings, and starts again.
    const late = await second.client();
    await late.publishAsync('sensors/late/n', '1', { qos: 1 });
    await second.stop();
    await clean(copy);
    await startAgain(second);
    assert.deepEqual(await second.rows("SELECT value FROM readings WHERE device_id = 'late'"), [[1]]);
}, { timeoutMs: 240000 });

test('of a node that does not run: the same checksums', async () => {
    const dir = tempDir(), a = join(dir, 'a');
    const { node, client } = await furnished(a);
    const traffic = load(client);
    await until('some load', () => traffic.acked() > 5000, 60000);
    await traffic.stop();
    await node.kill(); // what is not in a checkpoint is in the log
    const made = await ok(create(a, join(dir, 'x.snap')));
    await ok(restore(join(dir, 'b'), join(dir, 'x.snap')));
    const same = await ok(compare(a, join(dir, 'b')));
    assert.match(same.stdout, /^same +readings: \d+ rows, [0-9a-f]{16}$/m);
    assert.match(same.stdout, /^same +sessions: 1 sessions/m);
    assert.match(same.stdout, /^same +retained messages: 1 messages/m);
    assert.match(same.stdout, /^the same state$/m);
    // Another copy of the copy, and the file is the same state again.
    await ok(create(join(dir, 'b'), join(dir, 'y.snap')));
    await ok(restore(join(dir, 'c'), join(dir, 'y.snap')));
    await ok(compare(a, join(dir, 'c')));
    assert.equal(/entry (\d+)/.exec(made.stdout)[1], meta(join(dir, 'c')).log_fork);

    // One more row is seen, but first that they are not at the same entry.
    const more = await new Chronos(join(dir, 'c')).start();
    await more.rows("INSERT INTO env VALUES ('a', 'd3', '2024-01-01T00:00:00Z', 3.5)");
    await more.stop();
    const apart = await compare(a, join(dir, 'c'));
    assert.equal(apart.code, 1);
    assert.match(apart.stdout, /not at the same entry/);
    const different = await compare(a, join(dir, 'c'), '--at-any-entry');
    assert.equal(different.code, 1);
    assert.match(different.stdout, /^different +env: 1 rows, [0-9a-f]{16} here, 2 rows, [0-9a-f]{16} there$/m);
    assert.match(different.stdout, /^same +readings/m);
    assert.equal((await compare(a, join(dir, 'none'))).code, 2);
}, { timeoutMs: 240000 });

test('a file that is damaged or cut short is refused, and nothing is touched', async () => {
    const dir = tempDir(), file = join(dir, 'good.snap'), bad = join(dir, 'bad.snap'), target = join(dir, 'b');
    const { node, client } = await furnished(join(dir, 'a'));
    await Promise.all(Array.from({ length: 3000 }, (_, i) => client.publishAsync(`sensors/d${i % 5}/n`, String(i), { qos: 1 })));
    await ok(create(node.dataDir, file));
    const bytes = readFileSync(file);
    const refused = async (what, content, pattern) => {
        writeFileSync(bad, content);
        const { code, stderr } = await restore(target, bad);
        assert.equal(code, 1, what);
        assert.match(stderr, /^chronos: /m, what);
        assert.match(stderr, pattern, what);
        assert.ok(!existsSync(target), what);
    };
    await refused('empty', '', /is empty/);
    await refused('something else', 'SELECT 1;'.repeat(100), /byte 0: here should be a part/);
    for (const part of [0.1, 0.5, 0.9, 0.999])
        await refused(`cut to ${part}`, bytes.subarray(0, Math.floor(bytes.length * part)), /cut short: it ends at byte \d+/);
    await refused('without its last part', bytes.subarray(0, bytes.length - 32), /cut short: part \d+ is missing/);
    await refused('something behind it', Buffer.concat([bytes, Buffer.from('more')]), /byte \d+/);
    await refused('twice', Buffer.concat([bytes, bytes]), /byte \d+: part 0 has come before/);
    for (let i = 0; i < 20; i++) {
        const flipped = Buffer.from(bytes);
        const at = Math.floor((bytes.length * (i + 0.5)) / 20);
        flipped[at] ^= 1 << i % 8;
        await refused(`a bit at ${at}`, flipped, /bad\.snap.* byte \d+/); // of a length: it is cut short
    }
    assert.equal((await restore(target, join(dir, 'none.snap'))).code, 1);
    assert.deepEqual(readdirSync(dir).sort(), ['a', 'bad.snap', 'good.snap']);
});

test('what is there stays, unless --force', async () => {
    const dir = tempDir(), file = join(dir, 'x.snap');
    const { node } = await furnished(join(dir, 'a'));
    await ok(create(node.dataDir, file));
    const before = readFileSync(file);
    const again = await create(node.dataDir, file);
    assert.equal(again.code, 1);
    assert.match(again.stderr, /already/);
    assert.deepEqual(readFileSync(file), before);

    const other = await new Chronos(join(dir, 'b')).start();
    await other.rows("INSERT INTO readings (device_id, metric, value) VALUES ('mine', 'n', 7)");
    for (const more of [[], ['--force']]) {
        const running = await restore(other.dataDir, file, ...more);
        assert.equal(running.code, 1);
        assert.match(running.stderr, more.length ? /in use by another process/ : /not empty/);
    }
    await other.stop();
    const kept = await restore(other.dataDir, file);
    assert.equal(kept.code, 1);
    assert.match(kept.stderr, /not empty.*--force/);
    const bad = join(dir, 'bad.snap');
    writeFileSync(bad, before.subarray(0, before.length - 40));
    assert.equal((await restore(other.dataDir, bad, '--force')).code, 1);
    await startAgain(other);
    assert.deepEqual(await other.rows('SELECT device_id, value FROM readings'), [['mine', 7]]);
    await other.stop();

    const old = meta(other.dataDir);
    await ok(restore(other.dataDir, file, '--force'));
    await clean(other.dataDir);
    assert.notEqual(meta(other.dataDir).incarnation, old.incarnation);
    assert.deepEqual(readdirSync(other.dataDir).sort(), ['LOCK', 'db', 'log', 'node.meta', 'tmp']);
    await startAgain(other);
    assert.deepEqual(await other.rows('SELECT count(*) FROM readings'), [[0]]);
    assert.deepEqual(await other.rows('SELECT device, v FROM env'), [['d1', 1.5]]);

    const photos = join(dir, 'photos');
    mkdirSync(photos);
    copyFileSync(file, join(photos, 'cat.jpg'));
    for (const more of [[], ['--force']]) assert.equal((await restore(photos, file, ...more)).code, 1);
    assert.deepEqual(readdirSync(photos), ['cat.jpg']);
    assert.equal((await run(BIN, ['snapshot', 'create', '--data-dir', photos, '--output', join(dir, 'p')])).code, 1);
});

test('a restore that is killed at any moment is whole or has not happened', async () => {
    const dir = tempDir(), file = join(dir, 'x.snap'), target = join(dir, 'b');
    const { node, client } = await furnished(join(dir, 'a'));
    await Promise.all(Array.from({ length: 20000 }, (_, i) => client.publishAsync(`sensors/d${i % 5}/n`, String(i), { qos: 1 })));
    await ok(create(node.dataDir, file));
    const other = await new Chronos(target).start();
    await other.rows("INSERT INTO readings (device_id, metric, value) VALUES ('mine', 'n', 7)");
    await other.stop();
    let old = 0, fresh = 0;
    const began = Date.now();
    await ok(restore(join(dir, 'c'), file));
    const whole = Date.now() - began;
    for (let i = 0; i < 12; i++) {
        const { spawn } = await import('node:child_process');
        const child = spawn(BIN, ['snapshot', 'restore', '--data-dir', target, '--input', file, '--force'], { stdio: 'ignore' });
        cleanup(() => child.kill('SIGKILL'));
        const exited = new Promise((resolve) => child.on('exit', resolve));
        await new Promise((resolve) => setTimeout(resolve, (whole * (i + 1)) / 12));
        child.kill('SIGKILL');
        await exited;
        await startAgain(other);
        const [[count]] = await other.rows('SELECT count(*) FROM readings');
        assert.ok(count === 1 || count === 20000, `${count} rows`);
        if (count === 1) old++;
        else fresh++;
        await other.stop();
        await clean(target);
    }
    console.error(`${old} before, ${fresh} after`);
}, { timeoutMs: 240000 });

test('only an admin may take one over HTTP', async () => {
    const dir = tempDir(), a = join(dir, 'a');
    const tokens = { CHRONOS_AUTH_TOKEN_ADMIN: 'admin-token-0123456789', CHRONOS_AUTH_TOKEN_READONLY: 'readonly-token-0123456789' };
    const node = await new Chronos(a, [], tokens).start();
    const get = (token) => fetch(`${node.admin}/snapshot`, token ? { headers: { Authorization: `Bearer ${token}` } } : {});
    assert.equal((await get()).status, 401);
    assert.equal((await get(tokens.CHRONOS_AUTH_TOKEN_READONLY)).status, 403);
    assert.equal((await fetch(`${node.admin}/snapshot`, { method: 'POST' })).status, 405);
    const answer = await get(tokens.CHRONOS_AUTH_TOKEN_ADMIN);
    assert.equal(answer.status, 200);
    const file = join(dir, 'http.snap');
    writeFileSync(file, Buffer.from(await answer.arrayBuffer()));
    await ok(restore(join(dir, 'b'), file));
    // Whoever may read the directory may take one; so may who has the token, from elsewhere.
    await ok(create(a, join(dir, 'own.snap')));
    const remote = ['snapshot', 'create', '--admin-address', `127.0.0.1:${node.ready.adminPort}`, '--output'];
    const stranger = await run(BIN, [...remote, join(dir, 'no.snap')]);
    assert.equal(stranger.code, 1);
    assert.match(stranger.stderr, /refuses \(401\)/);
    assert.ok(!existsSync(join(dir, 'no.snap')) && !existsSync(join(dir, 'no.snap.partial')));
    await ok(run(BIN, [...remote, join(dir, 'yes.snap')], { env: { CHRONOS_AUTH_TOKEN_ADMIN: tokens.CHRONOS_AUTH_TOKEN_ADMIN } }));
    assert.equal(statSync(join(a, 'run')).mode & 0o777, 0o600);
    await node.stop();
    assert.ok(!existsSync(join(a, 'run')));
});

test('a reader that hangs up or stands still does not keep the node from stopping', async () => {
    const { node, client } = await furnished(join(tempDir(), 'a'));
    await Promise.all(Array.from({ length: 30000 }, (_, i) => client.publishAsync(`sensors/d${i % 5}/n`, String(Math.sin(i)), { qos: 1 })));
    const gone = new AbortController();
    const first = await fetch(`${node.admin}/snapshot`, { signal: gone.signal });
    assert.equal(first.status, 200);
    gone.abort();
    const { connect } = await import('node:net');
    const stands = connect(node.ready.adminPort, '127.0.0.1', () => stands.write('GET /snapshot HTTP/1.0\r\n\r\n'));
    cleanup(() => stands.destroy());
    stands.on('error', () => {});
    await new Promise((resolve) => stands.once('readable', resolve)); // and reads nothing
    const began = Date.now();
    assert.equal((await node.stop()).code, 0);
    assert.ok(Date.now() - began < 10000);
});

test('a cluster: its nodes have the same checksums, and a backup of any is one', async () => {
    const cluster = await new Cluster(3).start();
    await cluster.leader();
    for (const node of cluster.nodes) {
        const client = await node.client();
        await Promise.all(Array.from({ length: 500 }, (_, i) =>
            client.publishAsync(`sensors/on-${node.number}/n`, String(i), { qos: 1 })));
    }
    await sameRows(cluster.nodes, 'SELECT count(*), sum(value) FROM readings');
    const dir = tempDir(), file = join(dir, 'x.snap');
    await ok(create(cluster.nodes[1].dataDir, file));
    await Promise.all(cluster.nodes.map((node) => node.stop()));
    // The last of them may have elected a leader, whose first entry the others have not.
    for (const [a, b] of [[0, 1], [1, 2], [2, 0]]) {
        const { code, stdout, stderr } = await compare(cluster.nodes[a].dataDir, cluster.nodes[b].dataDir, '--at-any-entry');
        assert.equal(code, 0, stdout + stderr);
        assert.match(stdout, /^same +readings: 1500 rows/m);
    }
    const copy = await ok(restore(join(dir, 'b'), file)) && await new Chronos(join(dir, 'b')).start();
    assert.deepEqual(await copy.rows('SELECT count(*) FROM readings'), [[1500]]);
}, { timeoutMs: 120000 });

test('asked wrongly', async () => {
    const dir = tempDir();
    for (const args of [['snapshot'], ['snapshot', 'make'], ['snapshot', 'create', '--data-dir', dir],
        ['snapshot', 'restore', '--data-dir', dir], ['snapshot', 'create', '--outptu', 'x'], ['check', '--at-any-entry']]) {
        const { code, stderr } = await run(BIN, args);
        assert.equal(code, 2, args.join(' '));
        assert.match(stderr, /^chronos: /, args.join(' '));
    }
    assert.match((await run(BIN, ['help', 'snapshot'])).stdout, /--force/);
});
