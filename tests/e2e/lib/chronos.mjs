// A Chronos node under test: the real binary, a data directory of its own, free ports.
import { spawn, execFile } from 'node:child_process';
import { mkdtempSync, rmSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import mqtt from 'mqtt';
import { cleanup } from './harness.mjs';

export const BIN = process.env.CHRONOS;
export const BUILD = process.env.BUILD ?? join(BIN, '..');
/** Is the binary under a sanitizer? Then it is slow, and LD_PRELOAD is not for it. */
export const sanitized = /asan|tsan/.test(BUILD);
if (!BIN) throw new Error('CHRONOS is not set: the binary to test');

/** A fresh directory on the build tree's disk, removed after the test. */
export function tempDir(prefix = 'e2e-') {
    const base = join(BUILD, 'e2e');
    mkdirSync(base, { recursive: true });
    const dir = mkdtempSync(join(base, prefix));
    cleanup(() => rmSync(dir, { recursive: true, force: true }));
    return dir;
}

/** Runs a program to its end: {code, signal, stdout, stderr}. Never throws for an exit code. */
export function run(file, args, { input, env, timeoutMs = 30000 } = {}) {
    return new Promise((resolve) => {
        const child = execFile(
            file,
            args,
            { timeout: timeoutMs, maxBuffer: 1 << 28, env: { ...process.env, ...env } },
            (err, stdout, stderr) =>
                resolve({ code: err ? (err.code ?? -1) : 0, signal: err?.signal, stdout, stderr }),
        );
        if (input !== undefined) {
            child.stdin.on('error', () => {});
            child.stdin.end(input);
        }
    });
}

export class Chronos {
    constructor(dataDir, args = [], env = {}) {
        this.dataDir = dataDir;
        this.args = args;
        this.env = env;
        this.stderr = '';
    }

    /** Starts the binary and waits for its ready line. Throws with its output when it exits. */
    async start() {
        const args = [this.command ?? 'single-node', '--data-dir', this.dataDir, '--address', '127.0.0.1:0', ...this.args];
        const child = spawn(BIN, args, {
            stdio: ['ignore', 'ignore', 'pipe'],
            env: { ...process.env, ...this.env },
        });
        this.child = child;
        this.exited = new Promise((resolve) => {
            child.on('exit', (code, signal) => resolve({ code, signal }));
        });
        cleanup(() => this.kill());
        this.ready = await new Promise((resolve, reject) => {
            child.stderr.setEncoding('utf8');
            child.stderr.on('data', (text) => {
                this.stderr += text;
                const m = /^ready mqtt=(\S+):(\d+) admin=(\S+):(\d+)(.*)\n/m.exec(this.stderr);
                if (m) resolve({ host: m[1], port: Number(m[2]), adminPort: Number(m[4]), more: m[5] });
            });
            this.exited.then(({ code, signal }) =>
                reject(new Error(`chronos ended (${code ?? signal}) before it was ready:\n${this.stderr}`)));
        });
        this.port = this.ready.port;
        /** Listeners beside the first: [{kind: 'tls', address: '127.0.0.1:8883', port: 8883}]. */
        this.listeners = this.ready.more.trim().split(' ').filter(Boolean).map((word) => {
            const [kind, address] = word.split(/=(.*)/s);
            return { kind, address, port: Number(/:(\d+)$/.exec(address)?.[1]) };
        });
        this.admin = `http://127.0.0.1:${this.ready.adminPort}`;
        this.pid = child.pid;
        return this;
    }

    signal(name) {
        this.child.kill(name);
    }

    /** kill -9 and wait. */
    async kill() {
        if (this.child && this.child.exitCode === null && this.child.signalCode === null) {
            this.child.kill('SIGKILL');
            await this.exited;
        }
    }

    /** SIGTERM; resolves to {code, signal}. */
    async stop() {
        this.child.kill('SIGTERM');
        return this.exited;
    }

    async restart() {
        await this.kill();
        this.stderr = '';
        return this.start();
    }

    url() {
        return `mqtt://127.0.0.1:${this.port}`;
    }

    /**
     * A connected Node mqtt client, ended after the test; client.connack is the answer. onMessage
     * listens before it connects: what a session kept comes right behind CONNACK.
     */
    async client({ onMessage, ...options } = {}) {
        const client = mqtt.connect(this.url(), {
            protocolVersion: 5,
            reconnectPeriod: 0,
            ...options,
        });
        if (onMessage) client.on('message', onMessage);
        cleanup(() => client.endAsync(true).catch(() => {}));
        await new Promise((resolve, reject) => {
            client.once('connect', (connack) => resolve((client.connack = connack)));
            client.once('close', () => reject(new Error('the connection was closed')));
            client.on('error', reject);
        });
        return client;
    }

    /** SQL over MQTT 5 with a Response Topic; resolves to the JSON answer (all parts put together). */
    async sql(text, { properties, timeoutMs = 60000 } = {}) {
        this.sqlClient = this.sqlClient?.connected ? this.sqlClient : await this.client();
        const client = this.sqlClient;
        this.sqlCount = (this.sqlCount ?? 0) + 1;
        const topic = `answers/${process.pid}/${this.sqlCount}`;
        await client.subscribeAsync(topic, { qos: 1 });
        let whole;
        const answer = new Promise((resolve, reject) => {
            const timer = setTimeout(() => reject(new Error(`no answer to: ${text}`)), timeoutMs);
            const listen = (t, payload, packet) => {
                if (t !== topic) return;
                const part = JSON.parse(payload.toString());
                const user = packet.properties?.userProperties ?? {};
                whole = whole ? { ...whole, ...part, rows: [...whole.rows, ...(part.rows ?? [])] } : part;
                if (user.part !== undefined && user.last === 'false') return;
                if (user.part !== undefined && user.last === undefined) return;
                clearTimeout(timer);
                client.off('message', listen);
                resolve(whole);
            };
            client.on('message', listen);
        });
        await client.publishAsync('$chronos/sql', text, {
            qos: 1,
            properties: { responseTopic: topic, correlationData: Buffer.from('e2e'), ...properties },
        });
        const result = await answer;
        await client.unsubscribeAsync(topic);
        return result;
    }

    /** Like sql(), but an error answer throws. Resolves to the rows. */
    async rows(text, options) {
        const answer = await this.sql(text, options);
        if (answer.error) throw new Error(`${answer.error.code}: ${answer.error.message} in: ${text}`);
        return answer.rows;
    }

    /** Publishes at QoS 1 with MQTT 5; resolves to the PUBACK's reason code and Reason String. */
    publish(client, topic, payload, options = {}) {
        return new Promise((resolve) => {
            client.publish(topic, payload, { qos: 1, ...options }, (err, packet) =>
                resolve({ code: err ? (err.code ?? -1) : 0, reason: packet?.properties?.reasonString, err }));
        });
    }

    /** `chronos client -e SQL`. */
    cli(args, options) {
        return run(BIN, ['client', '--leader', `127.0.0.1:${this.port}`, ...args], options);
    }

    /** {status, headers, text} of a request to the admin port. */
    async http(path, options = {}) {
        const response = await fetch(this.admin + path, options);
        return { status: response.status, type: response.headers.get('content-type') ?? '', text: await response.text() };
    }

    async metrics() {
        const text = await (await fetch(`${this.admin}/metrics`)).text();
        const values = {};
        for (const line of text.split('\n')) {
            const m = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(\{[^}]*\})? (\S+)$/.exec(line);
            if (m) values[m[1] + (m[2] ?? '')] = Number(m[3]);
        }
        return values;
    }
}

/** A started node with a fresh data directory. */
export async function startChronos(args = [], env = {}) {
    return new Chronos(join(tempDir(), 'data'), args, env).start();
}
