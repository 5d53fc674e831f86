// A WebSocket client made of bytes: says exactly what a test wants said, broken frames included.
import net from 'node:net';
import { cleanup } from './harness.mjs';

export const UPGRADE = [
    'GET /mqtt HTTP/1.1', 'Host: farm', 'Upgrade: websocket', 'Connection: keep-alive, Upgrade',
    'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==', 'Sec-WebSocket-Version: 13', 'Sec-WebSocket-Protocol: mqtt', '', '',
].join('\r\n');

/** One frame as a client sends it. */
export function frame(payload, { opcode = 2, fin = true, masked = true, rsv = 0, length } = {}) {
    const n = payload.length;
    const form = length ?? (n < 126 ? 7 : n < 65536 ? 16 : 64);
    const head = Buffer.alloc(form === 7 ? 2 : form === 16 ? 4 : 10);
    head[0] = (fin ? 0x80 : 0) | (rsv << 4) | opcode;
    head[1] = (masked ? 0x80 : 0) | (form === 7 ? n : form === 16 ? 126 : 127);
    if (form === 16) head.writeUInt16BE(n, 2);
    if (form === 64) head.writeBigUInt64BE(BigInt(n), 2);
    if (!masked) return Buffer.concat([head, payload]);
    const mask = Buffer.from([0x11, 0x22, 0x33, 0x44]);
    return Buffer.concat([head, mask, Buffer.from(payload.map((b, i) => b ^ mask[i & 3]))]);
}

/** A TCP connection that gathers what it receives. */
export class RawClient {
    constructor(port) {
        this.socket = net.connect(port, '127.0.0.1');
        this.received = Buffer.alloc(0);
        this.ended = false;
        this.waiters = [];
        this.socket.setNoDelay(true);
        this.socket.on('data', (data) => {
            this.received = Buffer.concat([this.received, data]);
            this.wake();
        });
        for (const event of ['end', 'close', 'error']) this.socket.on(event, () => { this.ended = true; this.wake(); });
        cleanup(() => this.socket.destroy());
    }

    wake() {
        for (const waiter of this.waiters.splice(0)) waiter();
    }

    write(data) {
        this.socket.write(data);
    }

    /** Waits until probe(received) is not undefined; fails when the connection ends before. */
    async until(what, probe) {
        for (;;) {
            const value = probe(this.received);
            if (value !== undefined) return value;
            if (this.ended) throw new Error(`the connection ended before ${what}; received ${JSON.stringify(this.received.toString('latin1'))}`);
            await new Promise((resolve) => this.waiters.push(resolve));
        }
    }

    async end() {
        while (!this.ended) await new Promise((resolve) => this.waiters.push(resolve));
        return this.received;
    }

    /** Takes n bytes. */
    async take(n) {
        await this.until(`${n} bytes`, (all) => (all.length >= n ? true : undefined));
        const bytes = this.received.subarray(0, n);
        this.received = this.received.subarray(n);
        return bytes;
    }

    /** Takes the header of an HTTP answer. */
    async http() {
        const end = await this.until('an HTTP answer', (all) => { const at = all.indexOf('\r\n\r\n'); return at < 0 ? undefined : at + 4; });
        return (await this.take(end)).toString('latin1');
    }

    /** Takes frames until their payloads are the bytes expected. */
    async data(expected) {
        let got = Buffer.alloc(0);
        while (got.length < expected.length) got = Buffer.concat([got, (await this.frame()).payload]);
        if (!got.equals(expected)) throw new Error(`received ${got.toString('hex')}, not ${expected.toString('hex')}`);
    }

    /** Takes one frame of the server: {opcode, payload}. */
    async frame() {
        const head = await this.take(2);
        if (head[1] & 0x80) throw new Error('a masked frame from the server');
        let n = head[1] & 127;
        if (n === 126) n = (await this.take(2)).readUInt16BE(0);
        else if (n === 127) n = Number((await this.take(8)).readBigUInt64BE(0));
        return { opcode: head[0] & 15, fin: head[0] >> 7 === 1, payload: await this.take(n) };
    }
}
