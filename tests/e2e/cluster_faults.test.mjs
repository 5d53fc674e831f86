// Nodes that stand still, links that are cut, disks that are full, slow, sick or damaged, clocks that
// differ: each time under load, and each time nothing acknowledged is lost, nothing is doubled, and
// all nodes hold the same, also by the checksums of chronos check.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test, cleanup, until, skip } from './lib/harness.mjs';
import { BIN, BUILD, run, sanitized, tempDir } from './lib/chronos.mjs';
import { Cluster, sameRows } from './lib/cluster.mjs';
import { caughtUp, checkRows, pause, perDevice, publisher, random, seed } from './lib/load.mjs';

const ROUNDS = process.env.LONG ? 10 : 1;
const LIMITS = ['--hot-limit', '8MiB', '--checkpoint-log-bytes', '16MiB'];
const next = random(seed);
console.error(`seed ${seed}`);

let loads_count = 0;

/** Numbered readings to a node that stays. */
function load(node) {
    const prefix = `load${loads_count++}`;
    return { node, prefix, ...publisher(node.port, ['--qos', '1', '--prefix', prefix, '--clients', '4', '--window', '64']) };
}

/** Ends the loads, of which none has lost its connection; what they were told is on all nodes. */
async function settle(cluster, loads) {
    for (const l of loads) {
        assert.equal(l.child.exitCode, null, `${l.node.name} has closed a connection`);
        l.child.kill('SIGTERM');
    }
    let total = 0;
    const results = await Promise.all(loads.map((l) => l.done));
    await caughtUp(cluster);
    for (const [i, { code, out, err }] of results.entries()) {
        assert.equal(code, 0, err);
        total += checkRows(await sameRows(cluster.running(), perDevice(loads[i].prefix)), JSON.parse(out).clients);
    }
    assert.ok(total > 0, 'nothing was acknowledged: nothing was shown');
    return total;
}

/** Stops all nodes: each is sound, and has the same as the others. */
async function sound(cluster) {
    const exits = await Promise.all(cluster.nodes.map((n) => n.stop()));
    for (const [i, { code, signal }] of exits.entries())
        assert.equal(code, 0, `${cluster.nodes[i].name} ended with ${code ?? signal}:\n${cluster.nodes[i].stderr.slice(-3000)}`);
    for (const node of cluster.nodes) {
        const { code, stdout, stderr } = await run(BIN, ['check', '--data-dir', node.dataDir]);
        assert.equal(code, 0, `${node.name}: ${stdout}${stderr}`);
    }
    // The last of them may have elected a leader, whose first entry the others have not.
    for (const node of cluster.nodes.slice(1)) {
        const { code, stdout, stderr } = await run(BIN, ['check', '--data-dir', cluster.nodes[0].dataDir,
            '--against', node.dataDir, '--at-any-entry']);
        assert.equal(code, 0, `${node.name}: ${stdout}${stderr}`);
    }
}

/** The same node, with a connection of its own that reads what the node has. */
async function stale(node) {
    const view = Object.create(node);
    view.sqlClient = undefined;
    await view.rows("SET consistency = 'stale'");
    return view;
}

/** Readings one after the other; how long each took, in ms. */
function pulse(client, node, topic) {
    let stopped = false;
    const times = [];
    const done = (async () => {
        for (let i = 0; !stopped; i++) {
            const at = performance.now();
            const { code } = await node.publish(client, topic, String(i));
            assert.equal(code, 0, `${node.name} answered ${code}`);
            times.push(performance.now() - at);
        }
    })();
    done.catch(() => {});
    return { times, stop: async () => { stopped = true; await done; return times; } };
}

const quantile = (times, q) => times.toSorted((a, b) => a - b)[Math.min(times.length - 1, Math.floor(times.length * q))];
const shown = (times) => `p50 ${quantile(times, 0.5).toFixed(1)} ms, p99 ${quantile(times, 0.99).toFixed(1)} ms, longest ${Math.max(...times).toFixed(0)} ms`;

const term = async (cluster, node) => (await cluster.health(node)).term;

/** A reading through this node is acknowledged. */
async function takes(node, topic = `sensors/proof-${loads_count++}/n`) {
    const { code } = await node.publish(await node.client(), topic, '1');
    assert.equal(code, 0);
}

async function startAgain(node) {
    node.stderr = '';
    await node.start();
}

// ---- Nodes that stand still --------------------------------------------------------------------

test('the leader stands still for 3 s: another leads, and what it then says is not old', async () => {
    const cluster = await new Cluster(3, { args: LIMITS }).start();
    let answers = 0, refused = 0, total = 0;
    for (let round = 0; round < ROUNDS; round++) {
        const old = await cluster.leader();
        if (round === 0) await old.rows("CREATE TABLE ticks (value INT) WITH TOPIC='ticks'");
        const [writer, other] = cluster.followers(old);
        const loads = [load(writer), load(other)];
        // The counter that grows: what a question has to see was acknowledged before it was asked.
        const client = await writer.client();
        let acked = (await writer.rows('SELECT max(value) FROM ticks'))[0][0] ?? 0, stopped = false;
        const counting = (async () => {
            while (!stopped) {
                const { code } = await writer.publish(client, 'ticks', String(acked + 1));
                assert.equal(code, 0);
                acked++;
            }
        })();
        const asker = await old.client();
        const oldAnswers = [];
        asker.on('message', (t, payload, packet) => {
            const floor = Number(packet.properties.correlationData.toString());
            const { rows, error } = JSON.parse(payload.toString());
            if (error) {
                refused++;
                // No leader; or, on a slow machine, more questions wait than one client may have.
                if (error.code !== '08006' && error.code !== '53300') oldAnswers.push(JSON.stringify(error));
            } else {
                answers++;
                if (rows[0][0] < floor) oldAnswers.push(`${rows[0][0]} although ${floor} was acknowledged`);
            }
        });
        await asker.subscribeAsync('answers/ticks');
        let asked = 0;
        const ask = () => {
            if (asked - answers - refused >= 64) return; // it says 53300 to more that wait
            asked++;
            asker.publish('$chronos/sql', 'SELECT max(value) FROM ticks', {
                qos: 0, properties: { responseTopic: 'answers/ticks', correlationData: Buffer.from(String(acked)) },
            });
        };
        await until('some ticks', () => acked > 20);
        old.signal('SIGSTOP');
        cleanup(() => old.signal('SIGCONT'));
        const end = Date.now() + 3000;
        await cluster.leader([writer, other]);
        const before = acked;
        await until('the counter to go on', () => acked > before + 20);
        while (Date.now() < end) { // these wait in its socket
            ask();
            await pause(50);
        }
        old.signal('SIGCONT');
        const then = asked;
        await until('it follows, and has answered what it was asked meanwhile', async () => {
            for (let i = 0; i < 5; i++) ask();
            const health = await cluster.health(old);
            return health?.role === 'follower' && health.leader && health.leader !== old.name && answers + refused > then;
        });
        const last = asked;
        await until('answers of a follower', () => {
            ask();
            return answers > last + 10;
        });
        stopped = true;
        await counting;
        assert.deepEqual(oldAnswers, []);
        assert.equal(refused, 0, 'a question from when nobody led waited for the end of its time');
        total += await settle(cluster, loads);
        const [[count, most]] = await sameRows(cluster.nodes, 'SELECT count(*), max(value) FROM ticks');
        assert.equal(count, most);
    }
    console.error(`${total} readings, ${answers} answers of the old leader`);
    await sound(cluster);
}, { timeoutMs: 60000 + ROUNDS * 30000 });

/** What a node has allocated beside the rows that wait to be sealed. */
async function memory(node) {
    const { chronos_hot_bytes } = await node.metrics();
    const status = readFileSync(`/proc/${node.pid}/status`, 'utf8');
    return Number(/^RssAnon:\s+(\d+) kB/m.exec(status)[1]) * 1024 - chronos_hot_bytes;
}

test('a follower stands still for 5 s: nothing waits for it, and nothing piles up', async () => {
    // No checkpoint meanwhile: it takes memory of its own, in bursts.
    const args = ['--hot-limit', '1GiB', '--checkpoint-log-bytes', '1GiB', '--log-retain-bytes', '1GiB'];
    const cluster = await new Cluster(3, { args }).start();
    const leader = await cluster.leader();
    const [still, other] = cluster.followers(leader);
    await leader.rows("CREATE TABLE blobs (name STRING, body STRING) WITH TOPIC='blobs/{name}'");
    const loads = [load(leader), load(other)];
    const client = await leader.client();
    const noise = randomBytes(1 << 20).toString('base64');
    const enough = sanitized ? 20e6 : 45e6; // more than all windows hold
    let blobs = 0, bytes = 0, first = Infinity, stopped = false;
    const filling = Promise.all(Array.from({ length: 64 }, async () => {
        while (!stopped) {
            if (bytes - first > enough) { // a checkpoint at the end takes what it takes
                await pause(20);
                continue;
            }
            const body = noise.substr(Math.floor(next() * (noise.length - 8000)), 8000);
            const { code } = await leader.publish(client, `blobs/${blobs++ % 7}`, JSON.stringify({ body }));
            assert.equal(code, 0);
            bytes += body.length;
        }
    }));
    await until('it is warm', () => bytes > 10e6);
    const beat = pulse(await other.client(), other, 'sensors/pulse-0/n');
    const before = await memory(leader);
    first = bytes;
    still.signal('SIGSTOP');
    cleanup(() => still.signal('SIGCONT'));
    let most = 0;
    const end = Date.now() + 5000;
    await until('5 s and enough', async () => {
        most = Math.max(most, await memory(leader));
        return Date.now() > end && bytes - first > enough;
    }, 60000);
    const written = bytes - first, times = await beat.stop();
    still.signal('SIGCONT');
    stopped = true;
    await filling;
    const total = await settle(cluster, loads);
    console.error(`${total} readings, ${(written / 1e6).toFixed(0)} MB of others; the leader beside its rows ` +
        `${(before / 1e6).toFixed(0)} MB before, ${(most / 1e6).toFixed(0)} MB at most; readings: ${shown(times)}`);
    if (!sanitized) assert.ok(most - before < 30e6, `${before} bytes, then ${most}`);
    assert.deepEqual(await sameRows(cluster.nodes, 'SELECT count(*) FROM blobs'), [[blobs]]);
    await sound(cluster);
}, { timeoutMs: 150000 });

// ---- Links -------------------------------------------------------------------------------------

test('the leader is cut off: nothing is acknowledged there, stale reads go on; healed, all is everywhere', async () => {
    const cluster = await new Cluster(3, { args: LIMITS, links: true }).start();
    const old = await cluster.leader();
    const rest = cluster.followers(old);
    const loads = rest.map(load);
    const reader = await stale(old);
    const client = await old.client();
    await takes(old);
    cluster.isolate(old.number);
    let acked = 0;
    const held = Array.from({ length: 20 }, (_, i) =>
        old.publish(client, 'sensors/held-0/n', String(i)).then(({ code }) => acked += code === 0 ? 1 : NaN));
    await cluster.leader(rest);
    await takes(rest[0]);
    await until('it knows that it leads no more', async () => {
        const health = await cluster.health(old);
        return health.role !== 'leader' && health.status === 'no_leader';
    });
    assert.ok((await reader.rows('SELECT count(*) FROM readings'))[0][0] > 0);
    assert.equal((await old.sql('SELECT count(*) FROM readings')).error?.code, '08006');
    assert.equal(acked, 0);
    cluster.heal();
    await Promise.all(held);
    assert.equal(acked, 20);
    console.error(`${await settle(cluster, loads)} readings`);
    assert.deepEqual(await sameRows(cluster.nodes, perDevice('held')), [['held-0', 20, 20, 0, 19]]);
    await sound(cluster);
}, { timeoutMs: 120000 });

test('cuts in one direction, and between two of three: the term stays, the others go on', async () => {
    const cluster = await new Cluster(3, { args: LIMITS, links: true }).start();
    const shownTerms = [];
    let total = 0;
    for (let round = 0; round < ROUNDS; round++) {
        for (const way of ['leader to follower', 'follower to leader', 'both']) {
            const leader = await cluster.leader();
            const [cut, other] = cluster.followers(leader);
            const loads = [load(leader), load(other)];
            const first = await term(cluster, leader);
            if (way !== 'follower to leader') cluster.silence(leader.number, cut.number);
            if (way !== 'leader to follower') cluster.silence(cut.number, leader.number);
            const client = await cut.client();
            const held = cut.publish(client, `sensors/cut${loads_count++}-0/n`, '0');
            const end = Date.now() + 2500; // four election timeouts and more
            while (Date.now() < end) {
                await takes(leader);
                await takes(other);
            }
            const last = Math.max(...(await Promise.all(cluster.nodes.map((n) => term(cluster, n)))));
            shownTerms.push(`${way}: ${first} to ${last}`);
            assert.ok(last <= first + 2, `an election storm: ${first} to ${last}`);
            if (next() < 0.5) cluster.heal();
            else for (const link of Object.values(cluster.links)) link.thaw();
            assert.equal((await held).code, 0);
            total += await settle(cluster, loads);
        }
    }
    console.error(`${total} readings; terms: ${shownTerms.join('; ')}`);
    await sound(cluster);
}, { timeoutMs: 120000 + ROUNDS * 30000 });

test('links that flap for 5 s, with connections that end and others that come late', async () => {
    const cluster = await new Cluster(3, { args: LIMITS, links: true }).start();
    let total = 0;
    for (let round = 0; round < ROUNDS; round++) {
        const first = await term(cluster, await cluster.leader());
        const loads = cluster.nodes.map(load);
        const links = Object.values(cluster.links);
        const end = Date.now() + 5000;
        let flaps = 0;
        while (Date.now() < end) {
            const link = links[Math.floor(next() * links.length)];
            link.block(['both', 'there', 'back'][Math.floor(next() * 3)]);
            if (next() < 0.2) cluster.isolate(Math.floor(next() * 3));
            await pause(100 + next() * 300);
            for (const l of links) {
                if (next() < 0.3) l.heal();
                else if (next() < 0.8) l.thaw();
            }
            flaps++;
            await pause(next() * 100);
        }
        cluster.heal();
        const last = await term(cluster, await cluster.leader());
        const sum = await settle(cluster, loads);
        total += sum;
        console.error(`${sum} readings, ${flaps} flaps, terms ${first} to ${last}`);
    }
    await sound(cluster);
}, { timeoutMs: 60000 + ROUNDS * 40000 });

// ---- Disks -------------------------------------------------------------------------------------

/** A cluster on disks that do as they are told: tell(node, words). */
async function onSickDisks(args = LIMITS) {
    if (sanitized) skip('LD_PRELOAD before the sanitizer runtime');
    const dir = tempDir();
    const control = (i) => join(dir, `control${i}`);
    const cluster = new Cluster(3, {
        args,
        env: (i) => ({ LD_PRELOAD: join(BUILD, 'tests', 'libshim_disk.so'), SHIM_CONTROL: control(i) }),
    });
    for (let i = 0; i < 3; i++) writeFileSync(control(i), '');
    await cluster.start();
    return { cluster, tell: (node, words) => writeFileSync(control(node.number), words) };
}

test('a follower on a full disk: the others go on, and it comes after when there is room', async () => {
    const { cluster, tell } = await onSickDisks();
    const leader = await cluster.leader();
    const [full, other] = cluster.followers(leader);
    const loads = [load(leader), load(other), load(full)];
    await takes(full);
    tell(full, 'full');
    await until('it is seen', async () => (await cluster.health(full)).status === 'disk_full');
    for (let i = 0; i < 50; i++) await takes(other);
    assert.equal((await cluster.health(leader)).role, 'leader');
    tell(full, '');
    console.error(`${await settle(cluster, loads)} readings`);
    await sound(cluster);
}, { timeoutMs: 90000 });

test('a leader on a full disk hands over, and follows when there is room', async () => {
    const { cluster, tell } = await onSickDisks();
    let total = 0;
    for (let round = 0; round < ROUNDS; round++) {
        const full = await cluster.leader();
        const rest = cluster.followers(full);
        const loads = [...rest, full].map(load);
        await takes(full);
        const began = Date.now();
        tell(full, 'full');
        await until('it is seen', async () => (await cluster.health(full)).status === 'disk_full');
        const leader = await cluster.leader(rest);
        await takes(rest[0]);
        const took = Date.now() - began;
        for (let i = 0; i < 50; i++) await takes(rest[i % 2]);
        tell(full, '');
        await until('it is well', async () => (await cluster.health(full)).status === 'ok');
        assert.match(full.stderr, /hands leadership over/);
        const sum = await settle(cluster, loads);
        total += sum;
        console.error(`${sum} readings; ${leader.name} led and took one after ${took} ms`);
    }
    await sound(cluster);
}, { timeoutMs: 60000 + ROUNDS * 30000 });

for (const fsync of ['batch', 'periodic']) test(`a leader whose disk does not answer hands over, and follows when it does: fsync ${fsync}`, async () => {
    const { cluster, tell } = await onSickDisks([...LIMITS, '--fsync', fsync]);
    let total = 0;
    for (let round = 0; round < ROUNDS; round++) {
        const held = await cluster.leader();
        const rest = cluster.followers(held);
        const loads = [...rest, held].map(load);
        await takes(held);
        const began = Date.now();
        tell(held, 'hold-sync');
        const leader = await cluster.leader(rest);
        await takes(rest[0]);
        const took = Date.now() - began;
        for (let i = 0; i < 50; i++) await takes(rest[i % 2]);
        assert.equal((await cluster.health(held)).status, 'disk_hangs');
        tell(held, '');
        await takes(held);
        assert.match(held.stderr, /the disk does not answer; another node is to lead/);
        const sum = await settle(cluster, loads);
        total += sum;
        console.error(`${sum} readings; ${leader.name} led and took one after ${took} ms`);
    }
    await sound(cluster);
}, { timeoutMs: 60000 + ROUNDS * 30000 });

test('no room for a snapshot: nobody waits, it is tried again ever more seldom, and it comes when there is room', async () => {
    const { cluster, tell } = await onSickDisks(['--hot-limit', '4MiB', '--checkpoint-log-bytes', '1MiB',
        '--log-segment-bytes', '1MiB', '--log-retain-bytes', '64KiB']);
    const leader = await cluster.leader();
    const [full, other] = cluster.followers(leader);
    tell(full, 'no-install');
    full.signal('SIGSTOP');
    cleanup(() => full.signal('SIGCONT'));
    for (let i = 0; i < 100000; i += 5000) {
        const values = Array.from({ length: 5000 }, (_, k) => `('room-${(i + k) % 977}', '${new Date(1.7e12 + 977 * k + i).toISOString()}', ${i + k})`);
        await leader.rows(`INSERT INTO readings (device_id, ts, value) VALUES ${values.join(',')}`);
    }
    leader.signal('SIGUSR1'); // a checkpoint, and the log behind it goes
    await until('the log was cut', async () => (await cluster.health(leader)).log_first > 1);
    full.signal('SIGCONT');
    const refused = () => (full.stderr.match(/no room for it; it is asked for again later/g) ?? []).length;
    await until('it is tried again', () => refused() >= 2, 30000);
    await takes(other);
    tell(full, '');
    await until('it is there', () => /a snapshot is installed/.test(full.stderr), 60000);
    await caughtUp(cluster);
    assert.deepEqual(await sameRows(cluster.nodes, "SELECT count(*), sum(value) FROM readings WHERE device_id LIKE 'room-%'"), [[100000, 4999950000]]);
    assert.ok(refused() < 8, `${refused()} tries`); // after 2, 4, 8 s
    await sound(cluster);
}, { timeoutMs: 120000 });

test('a slow disk at a follower hurts nobody; at the leader it is only slow', async () => {
    const { cluster, tell } = await onSickDisks();
    const leader = await cluster.leader();
    const [slow, other] = cluster.followers(leader);
    const loads = [load(leader), load(other)];
    const client = await other.client();
    const measure = async (name, node, words) => {
        if (node) tell(node, words);
        const beat = pulse(client, other, `sensors/${name}-0/n`);
        const end = Date.now() + 1500;
        await until('it was measured', () => Date.now() > end && beat.times.length >= 5);
        if (node) tell(node, '');
        return beat.stop();
    };
    const well = await measure('well');
    const follower = await measure('follower', slow, 'slow-sync=200');
    const atLeader = await measure('leader', leader, `slow-sync=${50 + Math.floor(next() * 150)}`);
    console.error(`no slow disk: ${shown(well)}; a follower's: ${shown(follower)}; the leader's: ${shown(atLeader)}`);
    assert.ok(quantile(follower, 0.5) < 100, `a commit waits for the slow one: ${shown(follower)}`);
    console.error(`${await settle(cluster, loads)} readings`);
    await sound(cluster);
}, { timeoutMs: 90000 });

test('a failed fdatasync ends a node; the others go on, and it comes back', async () => {
    const { cluster, tell } = await onSickDisks();
    let total = 0;
    for (const who of ['follower', 'leader']) {
        const leader = await cluster.leader();
        const sick = who === 'leader' ? leader : cluster.followers(leader)[0];
        const loads = cluster.nodes.filter((n) => n !== sick).map(load);
        const own = load(sick);
        await takes(sick);
        tell(sick, 'fail-sync');
        const { code, signal } = await sick.exited;
        assert.ok(code > 0, `${code ?? signal}`);
        assert.match(sick.stderr, /log can't be trusted/);
        await cluster.leader(cluster.running());
        for (const { node } of loads) await takes(node);
        tell(sick, '');
        await startAgain(sick);
        const { out } = await own.done;
        total += await settle(cluster, loads);
        total += checkRows(await sameRows(cluster.nodes, perDevice(own.prefix)), JSON.parse(out).clients);
    }
    console.error(`${total} readings`);
    await sound(cluster);
}, { timeoutMs: 90000 });

/** Flips a byte in the middle of what a stopped node's newest written segment holds. */
function damage(node) {
    const dir = join(node.dataDir, 'log');
    for (const name of readdirSync(dir).filter((f) => f.endsWith('.seg')).sort().reverse()) {
        const path = join(dir, name);
        const bytes = readFileSync(path);
        let end = bytes.length;
        while (end && bytes[end - 1] === 0) end--;
        if (end < 64 << 10) continue; // little or nothing: not where readings are
        bytes[end >> 1] ^= 0x10;
        writeFileSync(path, bytes);
        return { name, at: end >> 1 };
    }
    throw new Error('there is no segment to damage');
}

test('a damaged log: the node refuses to start and says where; wiped, it is taken in again', async () => {
    const cluster = await new Cluster(3, { args: LIMITS }).start();
    const leader = await cluster.leader();
    const [hurt, other] = cluster.followers(leader);
    const loads = [load(leader), load(other)];
    await until('some log', async () => (await hurt.metrics()).chronos_log_bytes > 1 << 20);
    await hurt.kill();
    const { name, at } = damage(hurt);
    const refusal = await startAgain(hurt).then(() => '', (err) => err.message);
    assert.match(refusal, /before it was ready/);
    const said = refusal.split('\n').find((l) => /segment/.test(l) && /offset/.test(l));
    assert.ok(said, refusal);
    console.error(`byte ${at} of ${name}: ${said}`);
    rmSync(hurt.dataDir, { recursive: true });
    await startAgain(hurt);
    await until('it votes again', async () => {
        const health = await cluster.health(leader);
        return health?.peers.find((p) => p.node === hurt.name)?.voter && (await cluster.health(hurt))?.status === 'ok';
    }, 60000);
    console.error(`${await settle(cluster, loads)} readings`);
    await sound(cluster);
}, { timeoutMs: 120000 });

// ---- Clocks ------------------------------------------------------------------------------------

const FAKETIME = ['/usr/lib/x86_64-linux-gnu', '/usr/lib/aarch64-linux-gnu', '/usr/lib']
    .map((dir) => join(dir, 'faketime', 'libfaketimeMT.so.1')).find(existsSync);

/** Leadership moves to this node of three: the leader is stopped while the third does not answer. */
async function makeLeader(cluster, node) {
    for (;;) {
        const leader = await cluster.leader();
        if (leader === node) return;
        const third = cluster.nodes.find((n) => n !== leader && n !== node);
        third.signal('SIGSTOP');
        cleanup(() => third.signal('SIGCONT'));
        await pause(400); // longer than the leader takes it for one that answers
        const stopped = leader.stop();
        await until('it has handed over', async () => (await cluster.health(node))?.role === 'leader' || leader.child.exitCode !== null);
        third.signal('SIGCONT');
        await stopped;
        await startAgain(leader);
        await caughtUp(cluster);
    }
}

for (const [hours, name] of [[1, 'ahead'], [-1, 'behind']]) {
    test(`a clock one hour ${name}: stamps rise, expiry is the same everywhere, the skew is told`, async () => {
        if (!FAKETIME) skip('faketime is not installed');
        if (sanitized) skip('LD_PRELOAD before the sanitizer runtime');
        const cluster = await new Cluster(3, {
            args: LIMITS,
            env: (i) => i === 0 ? { LD_PRELOAD: FAKETIME, FAKETIME: `${hours > 0 ? '+' : ''}${hours * 3600}`, FAKETIME_DONT_FAKE_MONOTONIC: '1', FAKETIME_NO_CACHE: '1' } : {},
        }).start();
        const [wrong, right] = cluster.nodes;
        // By a node whose timed waits no library stands between.
        await right.rows("CREATE TABLE stamps (value INT) WITH TOPIC='stamps'");
        await right.rows("CREATE TABLE brief (ts TIMESTAMP, value INT) WITH TOPIC='brief', TTL='30 minutes'");
        let value = 0;
        const some = async () => {
            for (const node of cluster.nodes) {
                const client = await node.client();
                for (let i = 0; i < 5; i++) {
                    assert.equal((await node.publish(client, 'stamps', String(value))).code, 0);
                    assert.equal((await node.publish(client, 'brief', JSON.stringify({ value }))).code, 0);
                    value++;
                }
            }
        };
        const terms = [];
        for (const node of [right, wrong, right]) {
            await makeLeader(cluster, node);
            terms.push(await term(cluster, node));
            const loads = cluster.nodes.map(load);
            await some();
            await settle(cluster, loads);
        }
        const rows = await sameRows(cluster.nodes, 'SELECT value FROM stamps ORDER BY _hlc');
        assert.deepEqual(rows, Array.from({ length: value }, (_, i) => [i]));
        assert.deepEqual(await sameRows(cluster.nodes, 'SELECT count(DISTINCT _hlc) FROM stamps'), [[value]]);
        const brief = await sameRows(cluster.nodes, 'SELECT count(*) FROM brief');
        const skew = (await cluster.health(right)).peers.find((p) => p.node === wrong.name).skew_ms;
        assert.ok(Math.abs(skew - hours * 3600000) < 60000, `skew_ms ${skew}`);
        assert.match(right.stderr, /clocks differ.*node=node1 ahead_ms=-?3[56]\d{5}/);
        console.error(`skew_ms ${skew}, ${brief[0][0]} of ${value} rows of 30 minutes are left, terms ${terms.join(', ')}`);
        await sound(cluster);
    }, { timeoutMs: 120000 });
}

// ---- Nodes that die, and that are stopped --------------------------------------------------------

test('five nodes: two die at once, then two leaders in a row', async () => {
    const cluster = await new Cluster(5, { args: LIMITS }).start();
    let total = 0;
    for (let round = 0; round < ROUNDS; round++) {
        let leader = await cluster.leader();
        const pair = round % 2 ? cluster.followers(leader).slice(0, 2) : [leader, cluster.followers(leader)[1]];
        let stay = cluster.nodes.filter((n) => !pair.includes(n));
        let loads = stay.map(load);
        for (const n of stay) await takes(n);
        await Promise.all(pair.map((n) => n.kill()));
        await cluster.leader(stay);
        for (const n of stay) await takes(n);
        await Promise.all(pair.map(startAgain));
        total += await settle(cluster, loads);

        // Whoever is led by now is not known before: readings go to all, and some connections end.
        loads = cluster.nodes.map(load);
        const gone = [];
        for (let i = 0; i < 2; i++) {
            leader = await cluster.leader(cluster.running());
            await takes(cluster.followers(leader)[0]);
            await leader.kill();
            gone.push(leader);
        }
        await cluster.leader(cluster.running());
        for (const n of cluster.running()) await takes(n);
        await Promise.all(gone.map(startAgain));
        for (const l of loads.filter((l) => gone.includes(l.node))) {
            const { out } = await l.done;
            await caughtUp(cluster);
            total += checkRows(await sameRows(cluster.nodes, perDevice(l.prefix)), JSON.parse(out).clients);
        }
        total += await settle(cluster, loads.filter((l) => !gone.includes(l.node)));
    }
    console.error(`${total} readings`);
    await sound(cluster);
}, { timeoutMs: 90000 + ROUNDS * 60000 });

test('all nodes are restarted one after the other: who is connected to the others sees nothing of it', async () => {
    const cluster = await new Cluster(3, { args: LIMITS }).start();
    let total = 0;
    for (let round = 0; round < ROUNDS; round++) {
        for (const node of cluster.nodes) {
            const leads = (await cluster.leader()) === node;
            const stay = cluster.nodes.filter((n) => n !== node);
            const loads = stay.map(load);
            const beats = await Promise.all(stay.map(async (n) => pulse(await n.client(), n, `sensors/beat${loads_count++}-0/n`)));
            await until('they beat', () => beats.every((b) => b.times.length > 5));
            const { code } = await node.stop();
            assert.equal(code, 0, node.stderr.slice(-2000));
            await startAgain(node);
            await until('it is back', async () => (await cluster.health(node))?.status === 'ok');
            const times = (await Promise.all(beats.map((b) => b.stop()))).flat();
            console.error(`${node.name}${leads ? ', the leader' : ''}: ${shown(times)}`);
            total += await settle(cluster, loads);
        }
    }
    console.error(`${total} readings`);
    await sound(cluster);
}, { timeoutMs: 60000 + ROUNDS * 40000 });
