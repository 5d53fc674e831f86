// A peer that is none of ours: proves itself on a lane of a real node, and says what a test wants it
// to say (docs/formats.md, "Between nodes"). Without a secret; it takes no lanes itself.
import { createHmac, randomBytes } from 'node:crypto';
import mqtt from 'mqtt';
import { cleanup } from './harness.mjs';

const u64 = (n) => { const b = Buffer.alloc(8); b.writeBigUInt64LE(BigInt(n)); return b; };
const u32 = (n) => { const b = Buffer.alloc(4); b.writeUInt32LE(n); return b; };
const hex = (n) => BigInt(n).toString(16).padStart(16, '0');
const LANES = { control: 0, bulk: 1 };

/** Protobuf fields, [number, value]: BigInt is fixed64, a number a varint, text and bytes as they are. */
export function protobuf(...fields) {
    const varint = (n) => {
        const out = [];
        for (; n > 127; n = Math.floor(n / 128)) out.push((n % 128) | 128);
        return Buffer.from([...out, n]);
    };
    return Buffer.concat(fields.flatMap(([number, value]) => {
        if (typeof value === 'bigint') return [varint(number * 8 + 1), u64(value)];
        if (typeof value === 'number') return [varint(number * 8), varint(value)];
        const bytes = Buffer.from(value);
        return [varint(number * 8 + 2), varint(bytes.length), bytes];
    }));
}

/** "Members": [{node, incarnation, voter}]. */
export function members(list) {
    const sorted = [...list].sort((a, b) => (a.node < b.node ? -1 : 1));
    return Buffer.concat([u32(1), u32(list.length), ...sorted.flatMap((m) =>
        [u64(m.node), u64(m.incarnation), Buffer.from([m.voter ? 1 : 0, 0, 0, 0, 0, 0, 0, 0])])]);
}

/** An append: the RaftMessage, then entries {term, hlc, type, body}. */
export function append(message, entries) {
    return Buffer.concat([u32(message.length), message, ...entries.flatMap(({ term, hlc, type, body = Buffer.alloc(0) }) =>
        [u64(term), u64(hlc), u32(body.length), Buffer.from([type]), Buffer.alloc(11), body, Buffer.alloc((8 - (body.length % 8)) % 8)])]);
}

/** A lane of node `self` to node `to`, which listens at `port`: {send(kind, bytes), end()}. */
export async function lane(name, self, to, port) {
    const mine = `$chronos/peer/${hex(self)}/${name}`, theirs = `$chronos/peer/${hex(to)}/${name}`;
    const client = mqtt.connect(`mqtt://127.0.0.1:${port}`, {
        protocolVersion: 4, clientId: `$chronos-peer-${name}-${hex(self)}`, reconnectPeriod: 0, keepalive: 0, clean: true,
    });
    cleanup(() => client.endAsync(true).catch(() => {}));
    const send = (topic, bytes) => client.publishAsync(topic, bytes, { qos: 0 });
    await new Promise((resolve, reject) => {
        client.on('error', reject);
        client.on('close', () => reject(new Error('refused')));
        client.on('message', (topic, payload) => {
            if (topic === `${mine}/challenge`) {
                const nonce = randomBytes(32);
                const head = Buffer.concat([Buffer.from([1, LANES[name], 0, 0, 0, 0, 0, 0]), u64(self), u64(to), nonce]);
                const signed = Buffer.concat([Buffer.from('chronos peer 1 \0'), Buffer.from([1, LANES[name], 0, 0, 0, 0, 0, 0]),
                    u64(self), u64(to), nonce, payload.subarray(8, 40), Buffer.alloc(24)]);
                send(`${theirs}/proof`, Buffer.concat([head, createHmac('sha256', Buffer.alloc(0)).update(signed).digest()]));
            } else if (topic === `${mine}/accepted`) {
                resolve();
            }
        });
        client.on('connect', () => client.subscribe(`${mine}/#`));
    });
    return {
        end: () => client.endAsync(true),
        send: (kind, bytes) => send(`${theirs}/m`, Buffer.concat([u32(bytes.length), u32(bytes.length), u32(bytes.length), Buffer.from([kind, 0, 0, 0]), bytes])),
    };
}
