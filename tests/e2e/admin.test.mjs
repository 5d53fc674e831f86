// The admin port from its unfriendly side: hang-ups, slow readers, oversized bodies, foreign pages, noise.
import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { readFileSync } from 'node:fs';
import { test, skip, cleanup, until } from './lib/harness.mjs';
import { sanitized, startChronos } from './lib/chronos.mjs';

/** A raw connection to the admin port. */
function raw(node) {
    return new Promise((resolve, reject) => {
        const socket = connect(node.ready.adminPort, '127.0.0.1', () => resolve(socket));
        socket.on('error', reject);
        socket.on('error', () => {});
        cleanup(() => socket.destroy());
    });
}

/** What came until the other side closed. */
function drained(socket) {
    return new Promise((resolve) => {
        const parts = [];
        socket.on('data', (data) => parts.push(data));
        socket.on('close', () => resolve(Buffer.concat(parts).toString('latin1')));
    });
}

const post = (path, body, headers = '') =>
    `POST ${path} HTTP/1.1\r\nHost: 127.0.0.1\r\n${headers}Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`;

/** A table of `rows` rows, and (SLOW) a statement over it that takes seconds. */
async function fill(node, rows) {
    await node.rows('CREATE TABLE big (d STRING, n INT)');
    for (let from = 0; from < rows; from += 5000) {
        const values = Array.from({ length: 5000 }, (_, i) => `('device-${(from + i) % 97}',${from + i})`);
        await node.rows(`INSERT INTO big VALUES ${values.join(',')}`);
    }
}
const SLOW = `SELECT ${Array.from({ length: 10 }, (_, i) => `sum(length(repeat(d, ${700 + i})))`).join(', ')} FROM big`;

test('whoever hangs up ends his query', async () => {
    const node = await startChronos();
    await fill(node, 400000);
    const socket = await raw(node);
    socket.write(post('/query', SLOW));
    await until('the query runs', async () => (await node.metrics()).chronos_queries_running === 1);
    const before = (await node.metrics()).chronos_queries_cancelled_total;
    socket.destroy();
    await until('it is cancelled', async () =>
        (await node.metrics()).chronos_queries_cancelled_total === before + 1, 10000);
});

test('a reader that stops reading costs little and stops nobody', async () => {
    const node = await startChronos();
    await fill(node, 200000);
    const text = "SELECT d, n, repeat('x', 200) AS filler FROM big";
    const socket = await raw(node);
    socket.pause();
    socket.write(post('/query?format=csv', text, 'Connection: close\r\n'));
    await until('the query waits for its reader', async () => (await node.metrics()).chronos_queries_blocked >= 1);
    for (let i = 0; i < 20; i++) assert.equal((await node.http('/health')).status, 200);
    assert.deepEqual(await node.rows('SELECT count(*) FROM big'), [[200000]]);
    if (!sanitized) {
        const status = readFileSync(`/proc/${node.pid}/status`, 'utf8');
        const mib = Number(/RssAnon:\s+(\d+)/.exec(status)[1]) / 1024;
        assert.ok(mib < 64, `RssAnon ${mib} MiB`);
    }
    const all = drained(socket);
    socket.resume();
    const answer = await all;
    assert.match(answer, /^HTTP\/1\.1 200 OK\r\n/);
    assert.match(answer, /Transfer-Encoding: chunked/i);
    assert.ok(answer.endsWith('0\r\n\r\n'), 'the transfer is complete');
    assert.equal(answer.split('xxxxx\r\n').length - 1 >= 200000 * 0.99, true);
});

test('an error after rows left is told, and the answer does not look whole', async () => {
    const node = await startChronos();
    await fill(node, 300000);
    const text = "SELECT n, repeat('x', 100) AS f, 1 / (250000 - n) FROM big";
    const csv = await raw(node);
    const all = drained(csv);
    csv.write(post('/query?format=csv', text));
    const broken = await all;
    assert.match(broken, /^HTTP\/1\.1 200 OK\r\n/);
    assert.ok(!broken.endsWith('0\r\n\r\n'), 'the transfer is broken off');
    const json = await node.http('/query', { method: 'POST', body: text });
    assert.equal(json.status, 200);
    const document = JSON.parse(json.text);
    assert.equal(document.error.code, '22012');
    assert.ok(document.rows.length > 0);
    assert.equal(document.row_count, undefined);
});

test('bodies that are too large', async () => {
    const node = await startChronos(['--enable-ingest']);
    // Announced: answered before it is sent.
    const announced = await raw(node);
    const early = drained(announced);
    announced.write(`POST /query HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: ${64 << 20}\r\n\r\n`);
    assert.match(await early, /^HTTP\/1\.1 413 /);
    // In chunks: counted as they come.
    const chunked = await raw(node);
    const late = drained(chunked);
    chunked.write('POST /ingest HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n');
    const chunk = `10000\r\n${'x'.repeat(0x10000)}\r\n`;
    for (let i = 0; i < 80; i++) chunked.write(chunk);
    chunked.write('0\r\n\r\n');
    assert.match(await late, /^HTTP\/1\.1 413 /);
    // Headers have their limit too.
    const headers = await raw(node);
    const refused = drained(headers);
    headers.write(`GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n${`X: ${'y'.repeat(1000)}\r\n`.repeat(64)}\r\n`);
    assert.match(await refused, /^HTTP\/1\.1 4(31|13) /);
    assert.equal((await node.http('/health')).status, 200);
});

test('a page of another origin can not ask', async () => {
    const node = await startChronos(['--enable-ingest']);
    const at = `127.0.0.1:${node.ready.adminPort}`;
    const ask = async (host, origin) => {
        const socket = await raw(node);
        const all = drained(socket);
        socket.write(`POST /query HTTP/1.1\r\nHost: ${host}\r\n${origin ? `Origin: ${origin}\r\n` : ''}` +
            'Connection: close\r\nContent-Length: 8\r\n\r\nSELECT 1');
        return Number(/^HTTP\/1\.1 (\d+)/.exec(await all)[1]);
    };
    assert.equal(await ask(at), 200);
    assert.equal(await ask(at, `http://${at}`), 200);
    assert.equal(await ask('localhost:1', 'http://localhost:1'), 200);
    assert.equal(await ask(at, 'http://evil.example'), 403);
    assert.equal(await ask(at, 'null'), 403);
    // A name that its owner points at us.
    assert.equal(await ask('evil.example', 'http://evil.example'), 403);
    assert.equal(await ask('localhost.evil.example', 'http://localhost.evil.example'), 403);
    assert.equal(await ask('[evil', 'http://[evil'), 403);
});

test('SIGTERM while answers are made and sent', async () => {
    const node = await startChronos();
    await fill(node, 400000);
    const unread = await raw(node);
    unread.pause();
    unread.write(post('/query?format=csv', "SELECT n, repeat('x', 1000) AS f FROM big"));
    await until('one waits', async () => (await node.metrics()).chronos_queries_blocked >= 1);
    // Only then the one that computes: it takes seconds, and must not be over before it is seen.
    const running = await raw(node);
    running.write(post('/query', SLOW));
    await until('one computes', async () => (await node.metrics()).chronos_queries_running >= 1);
    const asked = Date.now();
    assert.deepEqual(await node.stop(), { code: 0, signal: null });
    assert.ok(Date.now() - asked < 20000);
});

test('POST /ingest while mappings change: each reading once', async () => {
    const node = await startChronos(['--enable-ingest']);
    let changing = true;
    const changes = (async () => {
        for (let i = 0; changing; i++) {
            await node.rows(`CREATE TABLE t${i} (v FLOAT) WITH TOPIC='other/${i}'`);
            await node.rows(`DROP TABLE t${i}`);
        }
    })();
    let sent = 0;
    const workers = Array.from({ length: 4 }, async (_, w) => {
        for (let i = 0; i < 100; i++) {
            const body = JSON.stringify([
                { device_id: `w${w}`, seq: i, metrics: { a: i, b: 2 * i } },
                { device_id: `w${w}`, seq: i, metrics: { c: 1 } },
            ]);
            const answer = await node.http('/ingest', { method: 'POST', body });
            assert.equal(answer.status, 200, answer.text);
            assert.deepEqual(JSON.parse(answer.text), { rows: 3 });
            sent += 3;
        }
    });
    await Promise.all(workers);
    changing = false;
    await changes;
    assert.deepEqual(await node.rows('SELECT count(*), sum(value) FROM readings'),
        [[sent, 4 * (3 * 4950 + 100)]]);
});

test('POST /ingest: what does not fit is refused whole, with the reason', async () => {
    const node = await startChronos(['--enable-ingest']);
    const ingest = (body) => node.http('/ingest', { method: 'POST', body });
    for (const body of ['', '{', '[{"device_id":"a","metrics":{"t":1}},{"device_id":"a","seq":"x","metrics":{"t":1}}]', '"text"']) {
        const answer = await ingest(body);
        assert.equal(answer.status, 400, `${body}: ${answer.text}`);
        assert.match(JSON.parse(answer.text).error.code, /^[0-9A-Z]{5}$/);
        assert.ok(JSON.parse(answer.text).error.message.length > 0);
    }
    assert.deepEqual(JSON.parse((await ingest('[]')).text), { rows: 0 });
    assert.deepEqual(await node.rows('SELECT count(*) FROM readings'), [[0]]);
    await node.rows('DROP TABLE readings');
    assert.equal((await ingest('{"device_id":"a","metrics":{"t":1}}')).status, 404);
});

test('several requests on a connection, and more connections than it takes', async () => {
    const node = await startChronos();
    const socket = await raw(node);
    let text = '';
    socket.on('data', (data) => (text += data));
    for (let i = 0; i < 50; i++) socket.write(post('/query', `SELECT ${1000 + i} AS n`));
    await until('all answers', () => text.split('HTTP/1.1 200 OK').length === 51);
    for (let i = 0; i < 50; i++) assert.ok(text.includes(`"rows":[[${1000 + i}]]`));
    const answers = await Promise.all(Array.from({ length: 300 }, (_, i) =>
        node.http('/query', { method: 'POST', body: `SELECT ${i} AS n` })));
    assert.deepEqual(answers.map((a) => JSON.parse(a.text).rows[0][0]), answers.map((_, i) => i));
});

test('random and mutated requests', async () => {
    const node = await startChronos(['--enable-ingest']);
    let state = Number(process.env.CHR_TEST_SEED ?? 20) >>> 0;
    console.error(`seed ${state}`);
    const random = (n) => {
        state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
        return Math.floor((state / 2 ** 32) * n);
    };
    const seeds = [
        post('/query', 'SELECT 1', 'Accept: text/csv;q=1, */*\r\n'), post('/query?format=table&header=0', 'SELECT 2'),
        post('/ingest', '{"device_id":"a","metrics":{"t":1}}'), 'GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n',
        'GET / HTTP/1.0\r\n\r\n', post('/query', 'SELECT', 'Idempotency-Key: k\r\nExpect: 100-continue\r\n'),
        'POST /query HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nSELE\r\n4\r\nCT 3\r\n0\r\n\r\n',
        'GET /health HTTP/1.1\r\nHost: [::1]\r\nOrigin: http://[::1]\r\n\r\n',
    ];
    const rounds = process.env.LONG ? 20000 : 1500;
    for (let i = 0; i < rounds; i += 50) {
        await Promise.all(Array.from({ length: 50 }, async () => {
            const bytes = Buffer.from(seeds[random(seeds.length)], 'latin1');
            for (let n = random(6); n > 0; n--) bytes[random(bytes.length)] = random(256);
            const cut = random(4) ? bytes.length : random(bytes.length);
            const socket = await raw(node);
            const over = new Promise((resolve) => {
                socket.on('close', resolve);
                socket.on('data', resolve);
            });
            socket.write(bytes.subarray(0, cut));
            if (random(2)) socket.end();
            await Promise.race([over, new Promise((resolve) => setTimeout(resolve, 50))]);
            socket.destroy();
        }));
    }
    await until('the node answers', async () => (await node.http('/health')).status === 200);
    await until('connections are closed', async () => (await node.metrics()).chronos_http_connections <= 2, 15000);
    assert.equal(node.child.exitCode, null);
});

test('a request that trickles in is given a minute', async () => {
    if (!process.env.LONG) skip('it takes a minute (--long)');
    const node = await startChronos();
    const socket = await raw(node);
    const closed = drained(socket);
    socket.write('POST /query HTTP/1.1\r\nHost: x\r\n');
    const began = Date.now();
    const timer = setInterval(() => socket.write('X: y\r\n'), 2000);
    cleanup(() => clearInterval(timer));
    await closed;
    assert.ok(Date.now() - began < 75000);
});
