// Three client libraries behind one face, so that a scenario is written once.
//
//   const c = await connect(library, port, { version, id, clean, session, will, … });
//   c.connack                                     { reason, present, and properties }
//   await c.subscribe([{ filter, qos, nl, rap, rh }], { id, up })      [reason codes]
//   await c.unsubscribe(['a'])                    [reason codes]; null: the library does not tell
//   await c.publish(topic, payload, { qos, retain, … })                { reason, rs }
//   await c.next()                                the next message     { topic, payload, qos, … }
//   await c.nothing()                             fails if there is one more
//   await c.disconnect({ reason, session })       c.gone: { reason, ref } of the server's DISCONNECT
//   await c.freeze(); await c.drop();             acknowledges nothing more; the connection is cut
//
// Properties have short names: expiry format ctype rtopic cdata alias up sub session rmax mps amax
// ska assigned ri rs ref; `up` is a list of pairs, `sub` a list of numbers.
import { spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import mqtt from 'mqtt';

const PATIENCE_MS = 30000;

function patience(promise, what) {
    let timer;
    const late = new Promise((_, reject) => {
        timer = setTimeout(() => reject(new Error(`waited ${PATIENCE_MS} ms for ${what}`)), PATIENCE_MS);
    });
    return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

class Client {
    constructor(options) {
        this.version = options.version;
        this.messages = [];
        this.waiting = [];
        this.gone = new Promise((resolve) => (this.onGone = resolve));
        this.barriers = 0;
        this.name = options.id ?? 'client';
    }

    took(message) {
        const waiter = this.waiting.shift();
        if (waiter) waiter(message);
        else this.messages.push(message);
    }

    next() {
        if (this.messages.length) return Promise.resolve(this.messages.shift());
        return patience(new Promise((resolve) => this.waiting.push(resolve)), `a message to ${this.name}`);
    }

    /** Several messages. */
    async take(count) {
        const all = [];
        while (all.length < count) all.push(await this.next());
        return all;
    }

    /** Everything this client has sent has been dealt with. */
    async sync() {
        const { reason } = await this.publish(`barrier/nobody/${process.pid}`, '', { qos: 1 });
        if (reason >= 0x80) throw new Error(`the barrier was refused: ${reason}`);
    }

    /** Fails if a message came that nobody asked for. A message to itself comes last. */
    async nothing() {
        const topic = `barrier/${process.pid}/${Math.random()}/${++this.barriers}`;
        await this.subscribe([{ filter: topic, qos: 0 }]);
        await this.publish(topic, 'barrier');
        const got = await this.next();
        if (got.topic !== topic) throw new Error(`${this.name} got ${JSON.stringify(got)}`);
        await this.unsubscribe([topic]);
    }
}

// ---- Libraries in C: a process per connection (line.h)

const escape = (value) =>
    [...Buffer.from(String(value))]
        .map((b) => (/[A-Za-z0-9\-_./]/.test(String.fromCharCode(b)) ? String.fromCharCode(b)
            : `%${b.toString(16).padStart(2, '0')}`))
        .join('');
const unescape = (text) => {
    const bytes = [];
    for (let i = 0; i < text.length; i++)
        if (text[i] === '%') {
            bytes.push(parseInt(text.slice(i + 1, i + 3), 16));
            i += 2;
        } else {
            bytes.push(text.charCodeAt(i));
        }
    return Buffer.from(bytes).toString();
};
const TEXTS = new Set(['topic', 'payload', 'ctype', 'rtopic', 'cdata', 'assigned', 'ri', 'rs', 'ref',
    'what', 'why']);

function parse(line) {
    const [word, ...fields] = line.split(' ');
    const event = { word };
    for (const field of fields) {
        const [key, value] = field.split('=');
        if (key === 'up') (event.up ??= []).push(value.split(',').map(unescape));
        else if (key === 'sub' || key === 'code') (event[key] ??= []).push(Number(value));
        else event[key] = TEXTS.has(key) ? unescape(value) : Number(value);
    }
    return event;
}

class Process extends Client {
    constructor(program, options) {
        super(options);
        this.pending = new Map(); // by n: {resolve, reject}
        this.mids = new Map(); // of libmosquitto: its number of what we call n
        this.early = new Map(); // answers that came before `sent`
        this.n = 0;
        this.child = spawn(program, [], { stdio: ['pipe', 'pipe', 'inherit'] });
        this.child.stdin.on('error', () => {});
        this.exited = new Promise((resolve) => this.child.on('exit', resolve));
        this.exited.then(() => this.onGone({}));
        let text = '';
        this.child.stdout.setEncoding('utf8');
        this.child.stdout.on('data', (part) => {
            const lines = (text + part).split('\n');
            text = lines.pop();
            for (const line of lines) this.event(parse(line));
        });
    }

    event(e) {
        if (e.word === 'connack') this.answered?.(e);
        else if (e.word === 'message') this.took(e);
        else if (e.word === 'disconnected') this.onGone(e);
        else if (e.word === 'closed') this.onGone({});
        else if (e.word === 'error') this.failed(new Error(`${this.name}: ${e.what}: ${e.why}`));
        else if (e.word === 'sent') {
            if (this.early.has(e.mid)) {
                this.answer(e.n, this.early.get(e.mid));
                this.early.delete(e.mid);
            } else this.mids.set(e.mid, e.n);
        } else if (e.mid === undefined) this.answer(e.n, e);
        else if (this.mids.has(e.mid)) {
            this.answer(this.mids.get(e.mid), e);
            this.mids.delete(e.mid);
        } else this.early.set(e.mid, e);
    }

    answer(n, e) {
        this.pending.get(n)?.resolve(e);
        this.pending.delete(n);
    }

    failed(error) {
        this.error = error;
        for (const { reject } of this.pending.values()) reject(error);
        this.pending.clear();
        this.refused?.(error);
    }

    write(word, fields) {
        const parts = Object.entries(fields)
            .filter(([, v]) => v !== undefined && v !== false)
            .flatMap(([k, v]) => (k === 'up' || k === 'will.up' || k === 'f'
                ? v.map((list) => `${k}=${list.map(escape).join(',')}`)
                : [`${k}=${escape(v === true ? 1 : v)}`]));
        this.child.stdin.write(`${[word, ...parts].join(' ')}\n`);
    }

    ask(word, fields) {
        const n = ++this.n;
        const answer = new Promise((resolve, reject) => this.pending.set(n, { resolve, reject }));
        this.write(word, { n, ...fields });
        return patience(answer, `${this.name}: the answer to ${word}`);
    }

    async open(port, { will = {}, ...options }) {
        const fields = { port, ...options, clean: options.clean === false ? '0' : '1' };
        for (const [key, value] of Object.entries(will))
            fields[key === 'topic' ? 'will' : `will.${key}`] = value;
        const answer = new Promise((resolve, reject) => {
            this.answered = resolve;
            this.refused = reject;
        });
        this.write('connect', fields);
        this.connack = await patience(answer, `${this.name}: CONNACK`);
        return this;
    }

    async subscribe(filters, options = {}) {
        const f = filters.map(({ filter, qos = 0, nl, rap, rh = 0 }) => [filter, qos, +!!nl, +!!rap, rh]);
        return (await this.ask('subscribe', { f, ...options })).code;
    }

    async unsubscribe(filters) {
        return (await this.ask('unsubscribe', { f: filters.map((x) => [x]) })).code ?? null;
    }

    publish(topic, payload, properties = {}) {
        return this.ask('publish', { topic, payload, ...properties });
    }

    async disconnect(options = {}) {
        this.write('disconnect', options);
        await patience(this.gone, `${this.name}: its connection to end`);
        this.child.stdin.end();
        await this.exited;
    }

    /** Until all its threads have stopped: one that runs may still acknowledge something. */
    async freeze() {
        this.child.kill('SIGSTOP');
        const tasks = `/proc/${this.child.pid}/task`;
        const stopped = (task) => /^\d+ \(.*\) [Tt] /.test(readFileSync(`${tasks}/${task}/stat`, 'latin1'));
        while (!readdirSync(tasks).every(stopped)) await new Promise((resolve) => setTimeout(resolve, 1));
    }

    async drop() {
        this.child.kill('SIGKILL');
        await this.exited;
    }

    async end() {
        this.child.kill('SIGKILL');
        await this.exited;
    }
}

// ---- Node's mqtt

const LONG = {
    expiry: 'messageExpiryInterval', format: 'payloadFormatIndicator', ctype: 'contentType',
    rtopic: 'responseTopic', cdata: 'correlationData', alias: 'topicAlias', sub: 'subscriptionIdentifier',
    session: 'sessionExpiryInterval', rmax: 'receiveMaximum', mps: 'maximumPacketSize',
    amax: 'topicAliasMaximum', ska: 'serverKeepAlive', assigned: 'assignedClientIdentifier',
    ri: 'responseInformation', rs: 'reasonString', ref: 'serverReference', maxqos: 'maximumQoS',
    rri: 'requestResponseInformation', rpi: 'requestProblemInformation', delay: 'willDelayInterval',
    id: 'subscriptionIdentifier',
};

function toLong(short) {
    const out = {};
    for (const [key, value] of Object.entries(short)) {
        if (value === undefined) continue;
        if (key === 'up') {
            out.userProperties = {};
            for (const [name, text] of value) (out.userProperties[name] ??= []).push(text);
        } else if (key === 'cdata') out.correlationData = Buffer.from(value);
        else if (key === 'format' || key === 'rri' || key === 'rpi') out[LONG[key]] = !!value;
        else if (LONG[key]) out[LONG[key]] = value;
    }
    return out;
}

function toShort(properties = {}) {
    const out = {};
    for (const [key, name] of Object.entries(LONG)) {
        const value = properties[name];
        if (value === undefined || key === 'id') continue;
        if (key === 'sub') out.sub = [value].flat();
        else if (key === 'cdata') out.cdata = value.toString();
        else out[key] = typeof value === 'boolean' ? +value : value;
    }
    const pairs = Object.entries(properties.userProperties ?? {});
    if (pairs.length) out.up = pairs.flatMap(([name, value]) => [value].flat().map((v) => [name, v]));
    return out;
}

class NodeClient extends Client {
    async open(port, { will, version, id, clean = true, keepalive = 60, user, pw, ...properties }) {
        const options = {
            protocolVersion: version, clientId: id ?? '', clean, keepalive, reconnectPeriod: 0,
            resubscribe: false, username: user, password: pw,
        };
        if (version === 5) options.properties = toLong(properties);
        if (will) {
            const { topic, payload = '', qos = 0, retain = 0, ...rest } = will;
            options.will = { topic, payload: Buffer.from(payload), qos, retain: !!retain };
            if (version === 5) options.will.properties = toLong(rest);
        }
        this.codes = { suback: [], unsuback: [] }; // who waits; answers come in order
        this.acks = new Map();
        this.mqtt = mqtt.connect(`mqtt://127.0.0.1:${port}`, options);
        this.mqtt.on('error', () => {});
        const connack = new Promise((resolve, reject) => {
            this.mqtt.on('packetreceive', (packet) => {
                if (packet.cmd === 'connack') resolve(packet);
                else if (packet.cmd === 'disconnect')
                    this.onGone({ reason: packet.reasonCode, ...toShort(packet.properties) });
                else if (packet.cmd === 'suback' || packet.cmd === 'unsuback')
                    this.codes[packet.cmd].shift()?.(packet);
                else if (packet.cmd === 'puback' || packet.cmd === 'pubrec' || packet.cmd === 'pubcomp') {
                    const before = this.acks.get(packet.messageId);
                    if (!before || packet.cmd !== 'pubcomp') this.acks.set(packet.messageId, packet);
                }
            });
            this.mqtt.on('close', () => {
                reject(new Error('closed before CONNACK'));
                this.onGone({});
            });
        });
        connack.catch(() => {});
        this.mqtt.on('message', (topic, payload, packet) =>
            this.took({
                topic, payload: payload.toString(), qos: packet.qos, retain: +packet.retain,
                dup: +packet.dup, ...toShort(packet.properties),
            }));
        const packet = await patience(connack, `${this.name}: CONNACK`);
        this.connack = {
            reason: packet.reasonCode ?? packet.returnCode, present: +packet.sessionPresent,
            ...toShort(packet.properties),
        };
        return this;
    }

    coded(word, start) {
        const answer = new Promise((resolve) => this.codes[word].push(resolve));
        start();
        return patience(answer, `${this.name}: ${word}`);
    }

    async subscribe(filters, options = {}) {
        const map = {};
        for (const { filter, qos = 0, nl, rap, rh = 0 } of filters)
            map[filter] = { qos, nl: !!nl, rap: !!rap, rh };
        const properties = Object.keys(options).length ? toLong(options) : undefined;
        const packet = await this.coded('suback', () => {
            this.mqtt.subscribe(map, properties ? { properties } : {}, () => {});
        });
        return packet.granted;
    }

    async unsubscribe(filters) {
        const packet = await this.coded('unsuback', () => {
            this.mqtt.unsubscribe(filters, {}, () => {});
        });
        return packet.granted ?? null;
    }

    publish(topic, payload, { qos = 0, retain = 0, ...rest } = {}) {
        const properties = this.version === 5 ? toLong(rest) : undefined;
        const done = new Promise((resolve, reject) => {
            this.mqtt.publish(topic, payload, { qos, retain: !!retain, properties }, (err, packet) => {
                const ack = this.acks.get(packet?.messageId);
                if (err && err.code === undefined) reject(err);
                else resolve({ reason: err?.code ?? ack?.reasonCode ?? 0, ...toShort(ack?.properties) });
            });
        });
        return patience(done, `${this.name}: the answer to publish`);
    }

    async disconnect({ reason = 0, session } = {}) {
        const options = { reasonCode: reason };
        if (session !== undefined) options.properties = { sessionExpiryInterval: session };
        await new Promise((resolve) => this.mqtt.end(false, options, resolve));
    }

    async freeze() {
        this.mqtt.stream.unpipe();
        this.mqtt.stream.pause();
    }

    async drop() {
        this.mqtt.stream.destroy();
        await this.gone;
    }

    async end() {
        await new Promise((resolve) => this.mqtt.end(true, {}, resolve));
    }
}

// ---- All three

/** What a library is called in the documentation. */
export const libraries = { mosquitto: 'libmosquitto', paho: 'paho C', node: "Node's mqtt" };

/** A connected client (or one that was refused: look at connack). options.version: 4 or 5. */
export async function connect(library, build, port, options) {
    const client = library === 'node' ? new NodeClient(options)
        : new Process(join(build, 'tests', `chr_foreign_${library}`), options);
    try {
        return await client.open(port, options);
    } catch (err) {
        await client.end();
        throw err;
    }
}
