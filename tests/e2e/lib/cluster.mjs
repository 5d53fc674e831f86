// A cluster of real nodes on loopback. Links between them may go through a proxy that can be cut.
import { createServer, connect } from 'node:net';
import { join } from 'node:path';
import { Chronos, tempDir } from './chronos.mjs';
import { cleanup, until } from './harness.mjs';
import { freePorts } from './port.mjs';

/** Passes bytes from a port of its own to another, until it is cut: in one direction or both. */
export class Link {
    constructor(target) {
        this.target = target;
        this.sockets = new Set();
        this.cut = { there: false, back: false };
    }

    async start() {
        this.server = createServer((from) => {
            const to = connect(this.target, '127.0.0.1');
            for (const s of [from, to]) {
                s.setNoDelay(true);
                this.sockets.add(s);
                s.on('error', () => {});
                s.on('close', () => {
                    this.sockets.delete(s);
                    from.destroy();
                    to.destroy();
                });
            }
            // A cut direction loses nothing by TCP's rules: it stands still, as behind a dead router.
            const pump = (a, b, way) => a.on('data', (bytes) => {
                if (this.cut[way]) this.held.push([b, bytes]);
                else if (!b.write(bytes)) {
                    a.pause();
                    b.once('drain', () => a.resume());
                }
            });
            pump(from, to, 'there');
            pump(to, from, 'back');
        });
        this.held = [];
        await new Promise((resolve) => this.server.listen(0, '127.0.0.1', resolve));
        this.port = this.server.address().port;
        cleanup(() => this.stop());
        return this;
    }

    /** Nothing passes any more: in 'there', 'back' or 'both' directions. */
    block(way = 'both') {
        if (way !== 'back') this.cut.there = true;
        if (way !== 'there') this.cut.back = true;
    }

    /** As before; connections that stood still are closed, so that they are made anew. */
    heal() {
        this.cut = { there: false, back: false };
        this.held = [];
        for (const s of this.sockets) s.destroy();
    }

    /** As before, on the same connections: what stood still arrives, late. */
    thaw() {
        this.cut = { there: false, back: false };
        for (const [socket, bytes] of this.held.splice(0)) if (!socket.destroyed) socket.write(bytes);
    }

    stop() {
        for (const s of this.sockets) s.destroy();
        this.server.close();
    }
}

export class Cluster {
    /** nodes: how many; args: for each node; links: peers reach each other through proxies; env: of
     *  each node, or a function of its number. */
    constructor(nodes = 3, { args = [], links = false, env = {} } = {}) {
        this.size = nodes;
        this.args = args;
        this.withLinks = links;
        this.env = env;
        this.dir = tempDir('cluster-');
        this.nodes = [];
        this.links = {};
    }

    async prepare() {
        const ports = await freePorts(this.size);
        for (let i = 0; i < this.size; i++) {
            const peers = [];
            for (let j = 0; j < this.size; j++) {
                if (i === j) continue;
                let port = ports[j];
                if (this.withLinks) port = (this.links[`${i}-${j}`] = await new Link(ports[j]).start()).port;
                peers.push(`node${j + 1}=127.0.0.1:${port}`);
            }
            const node = new Chronos(join(this.dir, `node${i + 1}`), ['--id', `node${i + 1}`,
                '--address', `127.0.0.1:${ports[i]}`, '--admin-address', '127.0.0.1:0',
                '--peers', peers.join(','), ...this.args],
                typeof this.env === 'function' ? this.env(i) : this.env);
            node.command = 'node';
            node.number = i;
            node.name = `node${i + 1}`;
            this.nodes.push(node);
        }
        return this;
    }

    /** Starts all nodes and waits until one leads and all know it. */
    async start() {
        await this.prepare();
        await Promise.all(this.nodes.map((n) => n.start()));
        await this.leader();
        return this;
    }

    /** The health of a node, or undefined when it does not answer. */
    async health(node) {
        try {
            return JSON.parse((await node.http('/health', { signal: AbortSignal.timeout(2000) })).text);
        } catch {
            return undefined;
        }
    }

    /** The node that leads by the word of `of` (all that run) in the highest term. */
    async leader(of = this.running()) {
        let states;
        return until('a leader that all know', async () => {
            states = await Promise.all(of.map((n) => this.health(n)));
            if (states.some((s) => !s?.leader)) return false;
            const names = new Set(states.map((s) => s.leader));
            if (names.size !== 1) return false;
            const leader = this.nodes.find((n) => n.name === [...names][0]);
            return of.includes(leader) && states[of.indexOf(leader)].role === 'leader' ? leader : false;
        }, 30000).catch((err) => {
            throw new Error(`${err.message}\n${JSON.stringify(states, null, 1)}\n` +
                of.map((n) => `${n.name}:\n${n.stderr.split('\n').filter((l) => !/mqtt: /.test(l)).slice(-(Number(process.env.LINES) || 12)).join('\n')}`).join('\n'));
        });
    }

    running() {
        return this.nodes.filter((n) => n.child && n.child.exitCode === null && n.child.signalCode === null);
    }

    followers(leader) {
        return this.running().filter((n) => n !== leader);
    }

    /** Cuts node i from node j: 'there' is what i sends on its own connections. */
    cut(i, j, way = 'both') {
        this.links[`${i}-${j}`].block(way);
    }

    /** Nothing that node i says reaches node j, on neither one's connections. */
    silence(i, j) {
        this.links[`${i}-${j}`].block('there');
        this.links[`${j}-${i}`].block('back');
    }

    /** A node can't be reached by anyone, nor reach anyone. */
    isolate(i) {
        for (const [name, link] of Object.entries(this.links))
            if (name.split('-').includes(String(i))) link.block();
    }

    heal() {
        for (const link of Object.values(this.links)) link.heal();
    }
}

/** The same answer from each node, read after everything that was acknowledged. */
export async function sameRows(nodes, sql) {
    const answers = await Promise.all(nodes.map((n) => n.rows(sql)));
    const first = JSON.stringify(answers[0]);
    for (let i = 1; i < answers.length; i++)
        if (JSON.stringify(answers[i]) !== first)
            throw new Error(`${nodes[i].name} has ${JSON.stringify(answers[i])}, ${nodes[0].name} has ${first}`);
    return answers[0];
}
