// Publish and subscribe across the nodes of a cluster.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { cleanup, test, until } from './lib/harness.mjs';
import { run } from './lib/chronos.mjs';
import { Cluster } from './lib/cluster.mjs';

/** A client that keeps what it gets: client.got is [{topic, payload, qos, retain, packet}]. */
async function subscriber(node, filters, { qos = 1, sub = {}, ...options } = {}) {
    const got = [];
    const client = await node.client({
        ...options,
        onMessage: (topic, payload, packet) =>
            got.push({ topic, payload: payload.toString(), qos: packet.qos, retain: packet.retain, packet }),
    });
    client.got = got;
    for (const filter of [filters].flat())
        await client.subscribeAsync(filter, { qos, ...sub });
    return client;
}

const payloads = (client) => client.got.map((m) => m.payload);

/** Waits until the client has got n messages, then a while longer, for those that are too many. */
async function gets(client, n, what = 'messages', lingerMs = 150) {
    await until(`${n} ${what} (has ${client.got.length})`, () => client.got.length >= n);
    await new Promise((resolve) => setTimeout(resolve, lingerMs));
    assert.equal(client.got.length, n, `${what}: ${JSON.stringify(payloads(client).slice(0, 20))}`);
}

test('plain and mapped topics at each QoS, from each node to each node', async () => {
    const cluster = await new Cluster(3).start();
    const subs = await Promise.all(cluster.nodes.map((n) =>
        subscriber(n, ['plain/+/#', 'sensors/+/temp'], { qos: 2 })));
    const pubs = await Promise.all(cluster.nodes.map((n) => n.client()));
    const expected = [];
    for (const [i, pub] of pubs.entries())
        for (const qos of [0, 1, 2])
            for (const topic of [`plain/${i}/q${qos}`, `sensors/dev${i}-${qos}/temp`]) {
                const payload = String(100 * i + qos);
                await pub.publishAsync(topic, payload, { qos });
                expected.push(`${topic} ${payload} ${qos}`);
            }
    expected.sort();
    for (const sub of subs) {
        await gets(sub, expected.length);
        assert.deepEqual(sub.got.map((m) => `${m.topic} ${m.payload} ${m.qos}`).sort(), expected);
    }
});

test('the largest packet that a client may send reaches the other nodes', async () => {
    const cluster = await new Cluster(3).start();
    for (const node of cluster.nodes)
        await until('the format that has large messages', async () => (await cluster.health(node)).format >= 2);
    const subs = await Promise.all(cluster.nodes.map((n) => subscriber(n, 'large/#', { qos: 2 })));
    const pub = await cluster.nodes[0].client();
    // 8,256 KiB with the fixed header, the topic and its length, the packet id and the length of no properties.
    const most = (qos) => 8256 * 1024 - 5 - 2 - 'large/0'.length - (qos ? 2 : 0) - 1;
    const body = Buffer.alloc(most(0), 'abcdefghijklmnopqrstuvwxyz');
    for (const qos of [0, 1, 2, 1]) {
        await Promise.all([
            pub.publishAsync(`large/${qos}`, body.subarray(0, most(qos)), { qos }),
            pub.publishAsync(`large/${qos}`, 'behind it', { qos }),
        ]);
        for (const sub of subs) {
            await until('both are there', () => sub.got.length >= 2);
            const got = sub.got.splice(0).map((m) => [m.qos, m.payload.length]);
            assert.deepEqual(got, [[qos, most(qos)], [qos, 9]]);
        }
    }
    // Several at once: each is passed on in its turn, and small ones behind them.
    await Promise.all([1, 2, 3].map((i) => pub.publishAsync(`large/${i}`, body.subarray(0, 7 << 20), { qos: 1 })));
    for (const sub of subs) {
        await until('all three are there', () => sub.got.length >= 3);
        assert.deepEqual(sub.got.map((m) => [m.topic, m.payload.length]), [1, 2, 3].map((i) => [`large/${i}`, 7 << 20]));
    }
    for (const node of cluster.nodes)
        for (const [name, value] of Object.entries(await node.metrics()))
            if (/^chronos_publishes_dropped_total.*"peer"/.test(name)) assert.equal(value, 0, name);
    const refused = await run(process.env.CHRONOS, ['node', '--id', 'x', '--data-dir', '/nowhere', '--address', '127.0.0.1:0', '--max-packet-size', '9MiB']);
    assert.notEqual(refused.code, 0);
    assert.match(refused.stderr, /max_packet_size: at most 8256KiB in a cluster: nodes pass on nothing larger/);
});

test('more share groups on a topic than a message between nodes bears: all of them, and everybody else, get it', async () => {
    const cluster = await new Cluster(3).start();
    const [a, b] = cluster.nodes;
    const plain = await subscriber(b, 'many/groups');
    const member = await subscriber(b, [], { properties: { receiveMaximum: 65535 } });
    for (let i = 0; i < 1100; i += 100)
        await member.subscribeAsync(Array.from({ length: 100 }, (_, k) => `$share/g${i + k}/many/groups`), { qos: 1 });
    const pub = await a.client();
    await pub.publishAsync('many/groups', 'x', { qos: 1 });
    await gets(plain, 1);
    await gets(member, 1100, 'messages, one for each group');
});

test('a link that takes long: what is on its way is not sent again', async () => {
    const cluster = await new Cluster(3, { links: true }).start();
    const leader = await cluster.leader();
    const [from, to] = cluster.followers(leader);
    const sub = await subscriber(to, 'slow/#', { qos: 1 });
    const pub = await from.client();
    const sent = async () => (await from.metrics())[`chronos_peer_sent_bytes_total{peer="${to.name}",lane="bulk"}`];
    const before = await sent();
    cluster.cut(from.number, to.number, 'there');
    const body = Buffer.alloc(1 << 20, 'x');
    await Promise.all([1, 2, 3].map((i) => pub.publishAsync(`slow/${i}`, body, { qos: 1 })));
    await new Promise((resolve) => setTimeout(resolve, 6000)); // the length of the fault: three times the patience
    cluster.links[`${from.number}-${to.number}`].thaw();
    await gets(sub, 3);
    assert.ok((await sent()) - before < 3.5 * body.length, `${(await sent()) - before} bytes`);
}, { timeoutMs: 60000 });

test('properties, payloads of all sizes, retain as published, subscription identifiers', async () => {
    const cluster = await new Cluster(3).start();
    const [a, b] = cluster.nodes;
    const sub = await subscriber(b, [], { protocolVersion: 5 });
    await sub.subscribeAsync('p/#', { qos: 1, rap: true, properties: { subscriptionIdentifier: 7 } });
    await sub.subscribeAsync('p/+', { qos: 0, properties: { subscriptionIdentifier: 9 } });
    const pub = await a.client();
    await pub.publishAsync('p/x', 'hello', {
        qos: 1,
        properties: {
            contentType: 'text/plain', responseTopic: 'r/1', correlationData: Buffer.from('c'),
            userProperties: { k: 'v' }, messageExpiryInterval: 1000, payloadFormatIndicator: true,
        },
    });
    await gets(sub, 1);
    const { properties } = sub.got[0].packet;
    assert.equal(properties.contentType, 'text/plain');
    assert.equal(properties.responseTopic, 'r/1');
    assert.equal(properties.userProperties.k, 'v');
    assert.ok(properties.messageExpiryInterval > 990 && properties.messageExpiryInterval <= 1000);
    assert.deepEqual([properties.subscriptionIdentifier].flat().sort(), [7, 9]);
    sub.got.length = 0;
    const sizes = [0, 1, 5000, 70000, 300000, 4000000];
    for (const n of sizes) await pub.publishAsync('p/size', 'x'.repeat(n), { qos: 1 });
    await gets(sub, sizes.length);
    assert.deepEqual(sub.got.map((m) => m.payload.length), sizes);
    sub.got.length = 0;
    await pub.publishAsync('p/kept', 'k', { qos: 1, retain: true });
    await gets(sub, 1);
    assert.equal(sub.got[0].retain, true);
});

test('mosquitto_sub on each node, mosquitto_pub on another', async () => {
    const cluster = await new Cluster(3).start();
    for (const version of ['mqttv311', 'mqttv5']) {
        for (let i = 0; i < 3; i++) {
            const from = cluster.nodes[(i + 1) % 3], to = cluster.nodes[i];
            const child = spawn('stdbuf', ['-oL', 'mosquitto_sub', '-V', version, '-p', String(to.port), '-q', '1', '-C', '2', '-v', '-d',
                '-t', `m/${version}/#`, '-t', 'sensors/+/hum']);
            cleanup(() => child.kill());
            let out = '';
            child.stdout.on('data', (text) => { out += text; });
            const ended = new Promise((resolve) => child.on('exit', resolve));
            await until('SUBACK', () => out.includes('Subscribed'));
            for (const args of [['-t', `m/${version}/${i}`, '-m', 'plain'], ['-t', `sensors/m${i}/hum`, '-m', '5']]) {
                const { code, stderr } = await run('mosquitto_pub', ['-V', version, '-p', String(from.port), '-q', '1', ...args]);
                assert.equal(code, 0, stderr);
            }
            assert.equal(await ended, 0);
            assert.match(out, new RegExp(`^m/${version}/${i} plain$`, 'm'));
            assert.match(out, new RegExp(`^sensors/m${i}/hum 5$`, 'm'));
        }
    }
});

test('5,000 messages of several publishers on three nodes: each once, in order', async () => {
    const cluster = await new Cluster(3).start();
    const subs = await Promise.all([0, 1, 2].map((i) =>
        subscriber(cluster.nodes[i], i === 1 ? 'flow/#' : ['flow/#', 'sensors/+/count'], { qos: i })));
    const mapped = await subscriber(cluster.nodes[1], 'sensors/+/count', { qos: 2 });
    const publishers = 6, each = 834;
    await Promise.all([...Array(publishers).keys()].map(async (p) => {
        const pub = await cluster.nodes[p % 3].client();
        const qos = p % 2 ? 2 : 1;
        const topic = p < 3 ? `flow/${p}` : `sensors/flow${p}/count`;
        const sent = [];
        for (let n = 0; n < each; n++) sent.push(pub.publishAsync(topic, String(n), { qos }));
        await Promise.all(sent);
    }));
    const check = (sub, count) => {
        const last = {};
        for (const m of sub.got) {
            assert.equal(Number(m.payload), (last[m.topic] ?? -1) + 1, `order of ${m.topic}`);
            last[m.topic] = Number(m.payload);
        }
        assert.equal(Object.keys(last).length, count);
    };
    await gets(subs[0], publishers * each);
    await gets(subs[2], publishers * each);
    await gets(subs[1], 3 * each);
    await gets(mapped, 3 * each);
    check(subs[0], publishers);
    check(subs[2], publishers);
    check(subs[1], 3);
    check(mapped, 3);
});

test('what is published right after SUBACK arrives, and nothing after UNSUBACK', async () => {
    const cluster = await new Cluster(3).start();
    const pubs = await Promise.all(cluster.nodes.map((n) => n.client()));
    for (let round = 0; round < 30; round++) {
        const i = round % 3, topic = round % 2 ? `soon/${round}` : `sensors/soon${round}/v`;
        const sub = await subscriber(cluster.nodes[i], [], { qos: 1 });
        await sub.subscribeAsync(topic, { qos: 1 });
        await Promise.all([1, 2].map((k) => pubs[(i + k) % 3].publishAsync(topic, String(k), { qos: k - 1 })));
        await until(`both, in round ${round}`, () => sub.got.length >= 2);
        await sub.unsubscribeAsync(topic);
        for (const pub of pubs) await pub.publishAsync(topic, '3', { qos: 1 });
        await new Promise((resolve) => setTimeout(resolve, 20));
        assert.equal(sub.got.length, 2);
        await sub.endAsync(true);
    }
});

test('retained messages of other nodes, at once after they were acknowledged', async () => {
    const cluster = await new Cluster(3).start();
    const pubs = await Promise.all(cluster.nodes.map((n) => n.client()));
    for (let round = 0; round < 12; round++) {
        const from = round % 3, to = (round + 1 + (round >> 2) % 2) % 3;
        const mapped = round % 2, topic = mapped ? `sensors/kept${round}/v` : `kept/${round}`;
        await pubs[from].publishAsync(topic, String(round), { qos: 1, retain: true });
        const sub = await subscriber(cluster.nodes[to], topic, { qos: 1 });
        await gets(sub, 1, `retained in round ${round}`, 60);
        assert.equal(sub.got[0].payload, String(round));
        assert.equal(sub.got[0].retain, true);
        if (mapped) continue; // an empty payload is no reading
        // Removed on a third node, it is nowhere any more.
        await pubs[3 - from - to].publishAsync(topic, '', { qos: 1, retain: true });
        await until('its removal', () => sub.got.length === 2);
        const late = await subscriber(cluster.nodes[from], topic, { qos: 1 });
        await new Promise((resolve) => setTimeout(resolve, 60));
        assert.deepEqual(payloads(late), []);
    }
});

test('No Local, overlapping subscriptions once, rejects, answers and $SYS at home', async () => {
    const cluster = await new Cluster(3).start();
    const [a, b, c] = cluster.nodes;
    const sub = await subscriber(b, ['o/#', 'o/+', 'o/x', '+/x'], { qos: 1 });
    const self = await subscriber(a, 'o/x', { qos: 1, sub: { nl: true } });
    await self.publishAsync('o/x', 'mine', { qos: 1 });
    await gets(sub, 1);
    assert.deepEqual(payloads(self), []);
    const other = await c.client();
    await other.publishAsync('o/x', 'other', { qos: 1 });
    await gets(sub, 2);
    await gets(self, 1);

    const rejects = await subscriber(c, '$chronos/reject/readings', { qos: 1 });
    const all = await subscriber(c, ['#', '$SYS/broker/version'], { qos: 1 });
    await a.publish(self, 'sensors/bad/temp', 'no number');
    await gets(rejects, 1);
    assert.equal(JSON.parse(rejects.got[0].payload).topic, 'sensors/bad/temp');
    // An answer goes to the node that was asked.
    await a.rows('SELECT 1');
    await new Promise((resolve) => setTimeout(resolve, 100));
    assert.deepEqual(all.got.filter((m) => m.topic !== '$SYS/broker/version'), []);
    assert.equal(new Set(payloads(all)).size, 1);
});

test('a shared group over three nodes gets each message exactly once, and all members some', async () => {
    const cluster = await new Cluster(3).start();
    const members = await Promise.all(cluster.nodes.map((n) => subscriber(n, '$share/g/work/#', { qos: 1 })));
    const two = await Promise.all(cluster.nodes.slice(1).map((n) =>
        subscriber(n, ['$share/h/work/#', '$share/g/sensors/+/job'], { qos: 1 })));
    const pubs = await Promise.all(cluster.nodes.map((n) => n.client()));
    const n = 300;
    for (let i = 0; i < n; i++) {
        await pubs[i % 3].publishAsync('work/plain', `p${i}`, { qos: i % 2 });
        await pubs[i % 3].publishAsync('sensors/w/job', String(i), { qos: i % 2 });
    }
    const of = (list, topic) => list.flatMap((s) => s.got.filter((m) => m.topic === topic).map((m) => m.payload));
    await until('all of both groups', () => of(members, 'work/plain').length >= n &&
        of(two, 'work/plain').length >= n && of(two, 'sensors/w/job').length >= n);
    await new Promise((resolve) => setTimeout(resolve, 200));
    const plain = [...Array(n).keys()].map((i) => `p${i}`).sort();
    assert.deepEqual(of(members, 'work/plain').sort(), plain);
    assert.deepEqual(of(two, 'work/plain').sort(), plain);
    assert.deepEqual(of(two, 'sensors/w/job').map(Number).sort((x, y) => x - y), [...Array(n).keys()]);
    for (const s of [...members, ...two])
        assert.ok(s.got.length > n / 6, `a member got ${s.got.length}`);
    // One that leaves takes nothing with it.
    await members[0].endAsync();
    const before = members[1].got.length + members[2].got.length;
    await until('the others hear of it', async () => {
        await pubs[1].publishAsync('work/plain', 'probe', { qos: 1 });
        await new Promise((resolve) => setTimeout(resolve, 30));
        return true;
    });
    for (let i = 0; i < 60; i++) await pubs[i % 3].publishAsync('work/after', `a${i}`, { qos: 1 });
    await until('all for those who stayed', () => of(members.slice(1), 'work/after').length >= 60);
    assert.ok(members[1].got.length + members[2].got.length >= before + 60);
});

test('a durable subscriber on one node, publishers on another: online and offline', async () => {
    const cluster = await new Cluster(3).start();
    const [a, , c] = cluster.nodes;
    const session = { clientId: 'keeper', clean: false, properties: { sessionExpiryInterval: 3600 } };
    const sub = await subscriber(c, ['d/#', 'sensors/keep/v'], { qos: 1, ...session });
    const pub = await a.client();
    const publish = async (from, to) => {
        for (let n = from; n < to; n++) {
            await pub.publishAsync('d/plain', `d${n}`, { qos: 1 });
            await pub.publishAsync('sensors/keep/v', String(n), { qos: 2 });
        }
    };
    await publish(0, 20);
    await pub.publishAsync('d/zero', 'z', { qos: 0 });
    await gets(sub, 41);
    await sub.endAsync();
    await publish(20, 40);
    const again = await subscriber(c, [], session);
    await gets(again, 40);
    const of = (s, topic) => s.got.filter((m) => m.topic === topic).map((m) => m.payload);
    assert.deepEqual(of(again, 'd/plain'), [...Array(20).keys()].map((n) => `d${n + 20}`));
    assert.deepEqual(of(again, 'sensors/keep/v'), [...Array(20).keys()].map((n) => String(n + 20)));
});

test('a link is cut and healed: nothing of QoS 1 is lost or doubled while the processes live', async () => {
    const cluster = await new Cluster(3, { links: true }).start();
    const leader = await cluster.leader();
    const [x, y] = cluster.followers(leader);
    const sub = await subscriber(y, ['cut/#', 'sensors/cut/v'], { qos: 1 });
    const pub = await x.client();
    let n = 0;
    const publish = async (count) => {
        for (let i = 0; i < count; i++, n++) {
            await pub.publishAsync('cut/plain', String(n), { qos: 1 });
            await pub.publishAsync('sensors/cut/v', String(n), { qos: 1 });
        }
    };
    for (let round = 0; round < 3; round++) {
        await publish(50);
        cluster.cut(x.number, y.number);
        cluster.cut(y.number, x.number);
        await publish(50);
        await new Promise((resolve) => setTimeout(resolve, 300));
        cluster.heal();
        await publish(50);
    }
    await until(`all (has ${sub.got.length} of ${2 * n})`, () => sub.got.length >= 2 * n, 30000);
    await new Promise((resolve) => setTimeout(resolve, 500));
    for (const topic of ['cut/plain', 'sensors/cut/v'])
        assert.deepEqual(sub.got.filter((m) => m.topic === topic).map((m) => Number(m.payload)),
            [...Array(n).keys()], topic);
}, { timeoutMs: 180000 });

/** Publishes 0, 1, 2 … with several under way until stop() is called; resolves to how many there were. */
function flow(client, topic, { qos = 1, window = 20, pauseMs = 1 } = {}) {
    let going = true;
    const done = (async () => {
        const out = new Set();
        let n = 0;
        for (; going; n++) {
            const one = client.publishAsync(topic, String(n), { qos });
            out.add(one);
            one.finally(() => out.delete(one));
            if (out.size >= window) await Promise.race(out);
            if (pauseMs) await new Promise((resolve) => setTimeout(resolve, pauseMs));
        }
        await Promise.all(out);
        return n;
    })();
    return { topic, stop: () => { going = false; return done; } };
}

/** Each topic's messages are all there, once and in order. */
async function complete(sub, flows) {
    for (const [topic, n] of flows) {
        const of = () => sub.got.filter((m) => m.topic === topic);
        await until(`${n} of ${topic} (has ${of().length})`, () => of().length >= n, 30000);
        of().forEach((m, i) => assert.equal(m.payload, String(i), `${topic}: place ${i}`));
        assert.equal(of().length, n);
    }
}

const counts = (flows) => Promise.all(flows.map(async (f) => [f.topic, await f.stop()]));

test('links are cut in each way while all nodes publish to all: once and in order', async () => {
    const cluster = await new Cluster(3, { links: true }).start();
    const subs = await Promise.all(cluster.nodes.map((n) => subscriber(n, ['sensors/+/flow', 'flow/+'], { qos: 1 })));
    const pubs = await Promise.all(cluster.nodes.map((n) => n.client()));
    const flows = pubs.flatMap((p, i) => [flow(p, `sensors/n${i}/flow`), flow(p, `flow/n${i}`), flow(p, `flow/two${i}`, { qos: 2 })]);
    for (let k = 0; k < 6; k++) {
        await new Promise((resolve) => setTimeout(resolve, 200));
        cluster.cut(k % 3, (k + 1) % 3, ['both', 'there', 'back'][k % 3]);
        if (k % 2) cluster.cut((k + 1) % 3, k % 3);
        await new Promise((resolve) => setTimeout(resolve, 150 * (1 + k % 3)));
        cluster.heal();
    }
    const all = await counts(flows);
    for (const sub of subs) await complete(sub, all);
}, { timeoutMs: 180000 });

test('the leader is killed while another node publishes to a third: once and in order', async () => {
    const cluster = await new Cluster(3).start();
    const leader = await cluster.leader();
    const [a, b] = cluster.followers(leader);
    const sub = await subscriber(b, ['sensors/+/flow', 'flow/+'], { qos: 1 });
    const pub = await a.client();
    const flows = ['sensors/x/flow', 'sensors/y/flow', 'flow/x'].map((t) => flow(pub, t, { window: 50 }));
    await new Promise((resolve) => setTimeout(resolve, 300));
    await leader.kill();
    await new Promise((resolve) => setTimeout(resolve, 2000));
    await leader.restart();
    await cluster.leader();
    await complete(sub, await counts(flows));
}, { timeoutMs: 180000 });

test('kill -9 of the origin right after PUBACK of a reading: others still get it', async () => {
    const cluster = await new Cluster(3).start();
    for (let round = 0; round < 3; round++) {
        const leader = await cluster.leader();
        const origin = round % 2 ? leader : cluster.followers(leader)[0];
        const others = cluster.nodes.filter((node) => node !== origin);
        const subs = await Promise.all(others.map((node) => subscriber(node, 'sensors/last/v', { qos: 1 })));
        const pub = await origin.client();
        for (let i = 0; i < 20; i++) await pub.publishAsync('sensors/last/v', String(i), { qos: 1 });
        await origin.kill();
        for (const sub of subs) {
            await gets(sub, 20, `readings in round ${round}`);
            assert.deepEqual(payloads(sub).map(Number), [...Array(20).keys()]);
            await sub.endAsync(true);
        }
        await origin.restart();
        await cluster.leader();
    }
}, { timeoutMs: 180000 });

test('a node that starts again hears of all subscribers, and is heard of', async () => {
    const cluster = await new Cluster(3).start();
    const [a, b, c] = cluster.nodes;
    const there = await subscriber(b, 'back/#', { qos: 1 });
    await c.kill();
    const pub = await a.client();
    await pub.publishAsync('back/1', '1', { qos: 1 });
    await gets(there, 1);
    await c.restart();
    await cluster.leader();
    const pubC = await c.client();
    await until('a message of the node that came back', async () => {
        await pubC.publishAsync('back/2', '2', { qos: 1 });
        await new Promise((resolve) => setTimeout(resolve, 50));
        return there.got.some((m) => m.payload === '2');
    });
    const here = await subscriber(c, 'back/3', { qos: 1 });
    await pub.publishAsync('back/3', '3', { qos: 1 });
    await gets(here, 1);
});

test('nodes that are stopped in the middle of it end well', async () => {
    const cluster = await new Cluster(3).start();
    await Promise.all(cluster.nodes.map((n) => subscriber(n, ['stop/#', '$share/g/stop/#', 'sensors/+/stop'], { qos: 1 })));
    let going = true;
    const flows = cluster.nodes.map(async (n, i) => {
        const pub = await n.client();
        for (let k = 0; going && pub.connected; k++)
            await Promise.race([
                Promise.all([
                    pub.publishAsync(`stop/${i}`, String(k), { qos: k % 3 }),
                    pub.publishAsync(`sensors/s${i}/stop`, String(k), { qos: 1 }),
                    pub.subscribeAsync(`more/${k}`),
                ]).catch(() => { going = false; }),
                new Promise((resolve) => setTimeout(resolve, 500)),
            ]);
    });
    await new Promise((resolve) => setTimeout(resolve, 500));
    for (const n of [...cluster.nodes].reverse()) {
        const { code, signal } = await n.stop();
        assert.equal(code, 0, `${n.name} ended with ${code ?? signal}: ${n.stderr.slice(-2000)}`);
    }
    going = false;
    await Promise.all(flows);
});
