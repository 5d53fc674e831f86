// What an operator touches: flags, config files, directories, ports, signals, HTTP.
import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync, chmodSync, existsSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { test, cleanup, skip, until } from './lib/harness.mjs';
import { BIN, Chronos, run, sanitized, startChronos, tempDir } from './lib/chronos.mjs';

const single = (args, options) => run(BIN, ['single-node', ...args], { timeoutMs: 20000, ...options });

test('version and help', async () => {
    const version = await run(BIN, ['--version']);
    assert.equal(version.code, 0);
    assert.match(version.stdout, /^chronos \d+\.\d+\.\d+\n$/);
    for (const args of [['help'], ['--help'], ['help', 'single-node'], ['single-node', '--help'],
        ['client', '--help'], ['check', '--help'], ['node', '--help'], ['snapshot', '--help']]) {
        const help = await run(BIN, args);
        assert.equal(help.code, 0, args.join(' '));
        assert.match(help.stdout, /chronos/, args.join(' '));
        assert.equal(help.stderr, '', args.join(' '));
    }
    assert.match((await run(BIN, ['single-node', '--help'])).stdout, /--hot-limit/);
    assert.match((await run(BIN, ['client', '--help'])).stdout, /--leader/);
    const wrong = await run(BIN, ['snigle-node']);
    assert.equal(wrong.code, 2);
    assert.match(wrong.stderr, /snigle-node.*single-node/);
});

test('wrong flags and keys are named, with what was meant', async () => {
    const dir = tempDir();
    const flag = await single(['--data-dri', dir]);
    assert.equal(flag.code, 2);
    assert.match(flag.stderr, /^chronos: unknown flag --data-dri; did you mean --data-dir\?/);
    const value = await single(['--hot-limit', 'lots']);
    assert.equal(value.code, 2);
    assert.match(value.stderr, /hot-limit.*lots/);
    const file = join(dir, 'chronos.conf');
    writeFileSync(file, '# a comment\nhot_limit = 32MiB\nfsnyc batch\n');
    const key = await single(['--config', file, '--test-config']);
    assert.equal(key.code, 2);
    assert.match(key.stderr, /chronos\.conf:3: unknown key fsnyc; did you mean fsync\?/);
    writeFileSync(file, 'hot-limit 32MiB\nfsync = every\nmax_queued_messages 10\nlistener 0 127.0.0.1\n');
    const good = await single(['--config', file, '--test-config']);
    assert.equal(good.code, 0, good.stderr);
    assert.equal(existsSync(join(dir, 'data')), false);
});

test('a flag beats the environment, the environment the file', async () => {
    const dir = tempDir();
    const file = join(dir, 'chronos.conf');
    writeFileSync(file, `fsync = wrong\n`);
    assert.equal((await single(['--config', file, '--test-config'])).code, 2);
    writeFileSync(file, `data-dir = ${join(dir, 'from-file')}\n`);
    const node = new Chronos(join(dir, 'from-flag'), ['--config', file], { CHRONOS_DATA_DIR: join(dir, 'from-environment') });
    await node.start();
    assert.ok(existsSync(join(dir, 'from-flag', 'node.meta')));
    assert.ok(!existsSync(join(dir, 'from-environment')));
    assert.ok(!existsSync(join(dir, 'from-file')));
    const bad = await single(['--test-config'], { env: { CHRONOS_HOT_LIMIT: 'x' } });
    assert.equal(bad.code, 2);
    assert.match(bad.stderr, /CHRONOS_HOT_LIMIT/);
});

test('an address that others can reach has to be allowed', async () => {
    const refused = await single(['--address', '0.0.0.0:0', '--test-config']);
    assert.equal(refused.code, 2);
    assert.match(refused.stderr, /allow_anonymous/);
    assert.equal((await single(['--address', '0.0.0.0:0', '--allow-anonymous', '--test-config'])).code, 0);
});

test('a port in use, directories that are locked, foreign, newer or unwritable', async () => {
    const dir = tempDir();
    const server = createServer();
    await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
    cleanup(() => new Promise((resolve) => server.close(resolve)));
    const inUse = await single(['--data-dir', join(dir, 'a'), '--admin-address', '127.0.0.1:0',
        '--address', `127.0.0.1:${server.address().port}`]);
    assert.equal(inUse.code, 1);
    assert.match(inUse.stderr, /^chronos: .*(in use|already)/m);

    const node = await startChronos();
    const locked = await single(['--data-dir', node.dataDir, '--address', '127.0.0.1:0']);
    assert.equal(locked.code, 1);
    assert.match(locked.stderr, /^chronos: .*in use by another process/m);
    const check = await run(BIN, ['check', '--data-dir', node.dataDir]);
    assert.equal(check.code, 2);

    mkdirSync(join(dir, 'photos'));
    writeFileSync(join(dir, 'photos', 'cat.jpg'), 'meow');
    const foreign = await single(['--data-dir', join(dir, 'photos'), '--address', '127.0.0.1:0']);
    assert.equal(foreign.code, 1);
    assert.match(foreign.stderr, /not a Chronos data directory/);

    mkdirSync(join(dir, 'newer'));
    writeFileSync(join(dir, 'newer', 'node.meta'),
        'format 999\ncluster 0000000000000001\nnode 1\nincarnation 0000000000000001\n');
    const newer = await single(['--data-dir', join(dir, 'newer'), '--address', '127.0.0.1:0']);
    assert.equal(newer.code, 1);
    assert.match(newer.stderr, /newer/);

    writeFileSync(join(dir, 'file'), '');
    assert.equal((await single(['--data-dir', join(dir, 'file'), '--address', '127.0.0.1:0'])).code, 1);
    if (process.getuid() === 0) return; // root may write everywhere
    mkdirSync(join(dir, 'closed'));
    chmodSync(join(dir, 'closed'), 0o500);
    const closed = await single(['--data-dir', join(dir, 'closed', 'data'), '--address', '127.0.0.1:0']);
    assert.equal(closed.code, 1);
    assert.match(closed.stderr, /Permission denied/);
});

test('SIGTERM under load: everything acknowledged is there, exit 0, and the next start is clean', async () => {
    const node = await startChronos();
    const client = await node.client();
    let acked = 0, sent = 0;
    client.on('close', () => {});
    const load = (async () => {
        while (client.connected) {
            const wave = Array.from({ length: 200 }, () =>
                client.publishAsync('sensors/term/n', String(sent++), { qos: 1 }).then(() => acked++, () => {}));
            await Promise.race([Promise.all(wave), node.exited]);
        }
    })();
    await until('some load', () => acked > 2000);
    const { code, signal } = await node.stop();
    assert.equal(code, 0, `${signal}\n${node.stderr}`);
    await load;
    const final = acked;
    const check = await run(BIN, ['check', '--data-dir', node.dataDir]);
    assert.equal(check.code, 0, check.stdout + check.stderr);
    node.stderr = '';
    await node.start();
    const [[count, distinct]] = await node.rows('SELECT count(*), count(DISTINCT value) FROM readings');
    assert.ok(count >= final, `${count} rows, ${final} acknowledged`);
    assert.equal(count, distinct);
});

test('the stop makes a checkpoint: the log need not be replayed', async () => {
    const node = await startChronos();
    const client = await node.client();
    for (let i = 0; i < 50; i++) await client.publishAsync('sensors/a/t', String(i), { qos: 1 });
    assert.equal((await node.stop()).code, 0);
    node.stderr = '';
    await node.start();
    const m = await node.metrics();
    assert.ok(m.chronos_checkpoint_index >= 50 || m.chronos_hot_rows === 0, JSON.stringify(m.chronos_checkpoint_index));
    assert.deepEqual(await node.rows('SELECT count(*), min(value), max(value) FROM readings'), [[50, 0, 49]]);
});

test('chronos check finds a flipped bit in a sealed data directory', async () => {
    const node = await startChronos();
    const client = await node.client();
    await Promise.all(Array.from({ length: 2000 }, (_, i) =>
        client.publishAsync(`sensors/d${i % 7}/t`, String(i), { qos: 1 })));
    assert.equal((await node.stop()).code, 0);
    const clean = await run(BIN, ['check', '--data-dir', node.dataDir]);
    assert.equal(clean.code, 0, clean.stdout);
    const { readFileSync } = await import('node:fs');
    const path = join(node.dataDir, 'db', 'data.mdb');
    const bytes = readFileSync(path);
    // A byte of a stored text: the name of the metric's device, wherever the chunk holds it.
    const at = bytes.lastIndexOf('sensors/{device_id}');
    assert.ok(at > 0);
    bytes[at + 3] ^= 1;
    writeFileSync(path, bytes);
    const damaged = await run(BIN, ['check', '--data-dir', node.dataDir]);
    assert.equal(damaged.code, 1, damaged.stdout + damaged.stderr);
    assert.match(damaged.stdout, /^finding: /m);
});

test('/health', async () => {
    const node = await startChronos();
    const { status, type, text } = await node.http('/health');
    assert.equal(status, 200);
    assert.match(type, /application\/json/);
    const health = JSON.parse(text);
    assert.equal(health.role, 'leader');
    assert.equal(typeof health.apply_index, 'number');
    assert.equal((await node.http('/nowhere')).status, 404);
    assert.equal((await node.http('/health', { method: 'DELETE' })).status, 405);
});

test('/metrics is well-formed Prometheus text', async () => {
    const node = await startChronos();
    const client = await node.client();
    await client.publishAsync('sensors/a/t', '1', { qos: 1 });
    const { status, type, text } = await node.http('/metrics');
    assert.equal(status, 200);
    assert.match(type, /^text\/plain; version=0\.0\.4/);
    assert.ok(text.endsWith('\n'));
    const types = new Map(), seen = new Set();
    for (const line of text.trimEnd().split('\n')) {
        let m;
        if ((m = /^# HELP ([a-z_:][a-z0-9_:]*) \S.*$/.exec(line))) continue;
        if ((m = /^# TYPE ([a-z_:][a-z0-9_:]*) (counter|gauge|histogram)$/.exec(line))) {
            assert.ok(!types.has(m[1]), `TYPE twice: ${m[1]}`);
            types.set(m[1], m[2]);
            continue;
        }
        m = /^([a-z_:][a-z0-9_:]*)(\{[a-z_]+="[^"\\\n]*"(,[a-z_]+="[^"\\\n]*")*\})? (-?\d+(\.\d+)?(e[+-]?\d+)?|[+-]Inf|NaN)$/i.exec(line);
        assert.ok(m, `not a sample: ${line}`);
        assert.ok(!seen.has(m[1] + (m[2] ?? '')), `twice: ${line}`);
        seen.add(m[1] + (m[2] ?? ''));
        const family = m[1].replace(/_(bucket|sum|count)$/, '');
        const kind = types.get(m[1]) ?? types.get(family);
        assert.ok(kind, `no TYPE before ${line}`);
        if (kind === 'counter') assert.match(m[1], /_total$/, line);
    }
    const values = await node.metrics();
    assert.equal(values.chronos_rows_applied_total, 1);
});

test('POST /query: forms, errors, large answers', async () => {
    const node = await startChronos();
    const query = (body, suffix = '', headers = {}) =>
        node.http(`/query${suffix}`, { method: 'POST', body, headers });
    const one = await query('SELECT 1 AS n, \'x\' AS s');
    assert.equal(one.status, 200);
    assert.match(one.type, /application\/json/);
    assert.deepEqual(JSON.parse(one.text).rows, [[1, 'x']]);
    const csv = await query('SELECT 1 AS n', '?format=csv');
    assert.match(csv.type, /text\/csv/);
    assert.equal(csv.text.replace(/\r/g, ''), 'n\n1\n');
    assert.match((await query('SELECT 1 AS n', '', { accept: 'text/csv' })).type, /text\/csv/);
    const bad = await query('SELECT nope');
    assert.equal(bad.status, 400);
    assert.equal(JSON.parse(bad.text).error.code, '42703');
    assert.equal((await query('INSERT INTO readings (device_id, value) VALUES (\'h\', 2)')).status, 200);
    assert.deepEqual(await node.rows('SELECT value FROM readings'), [[2]]);
    assert.equal((await node.http('/query')).status, 405);
    await node.sql('CREATE TABLE big (i INT)');
    for (let from = 0; from < 50000; from += 10000)
        await node.rows(`INSERT INTO big VALUES ${Array.from({ length: 10000 }, (_, i) => `(${from + i})`).join(',')}`);
    const large = await query('SELECT i FROM big ORDER BY i', '?format=ndjson');
    assert.equal(large.status, 200);
    assert.equal(large.text.trimEnd().split('\n').length, 50000);
});

test('POST /ingest: only when enabled; committed when answered', async () => {
    const off = await startChronos();
    const body = '{"device_id":"h","ts":"2024-12-10T19:13:20Z","metrics":{"temp":30.5,"humidity":40.2}}';
    const post = (node, text) => node.http('/ingest', { method: 'POST', body: text });
    assert.equal((await post(off, body)).status, 404);
    const node = await startChronos(['--enable-ingest']);
    const answer = await post(node, body);
    assert.equal(answer.status, 200, answer.text);
    assert.equal(JSON.parse(answer.text).rows, 2);
    await node.restart();
    assert.deepEqual(await node.rows('SELECT device_id, metric, value FROM readings ORDER BY metric'),
        [['h', 'humidity', 40.2], ['h', 'temp', 30.5]]);
    const bad = await post(node, '{"metrics":{"temp":');
    assert.equal(bad.status, 400);
    assert.ok(JSON.parse(bad.text).error.message);
    assert.deepEqual(await node.rows('SELECT count(*) FROM readings'), [[2]]);
});

test('an idle node is small', async () => {
    if (sanitized) skip('sanitizers are not small');
    const node = await startChronos();
    const client = await node.client();
    await client.publishAsync('sensors/a/t', '1', { qos: 1 });
    const { readFileSync } = await import('node:fs');
    const rss = Number(/RssAnon:\s+(\d+)/.exec(readFileSync(`/proc/${node.pid}/status`, 'utf8'))[1]);
    assert.ok(rss < 4096, `RssAnon ${rss} KiB`);
});
