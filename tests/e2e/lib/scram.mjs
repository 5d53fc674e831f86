// The client's side of SCRAM-SHA-256 (RFC 7677), and clients that log in by it.
import { createHash, createHmac, pbkdf2Sync, randomBytes } from 'node:crypto';
import net from 'node:net';
import mqttPacket from 'mqtt-packet';
import { cleanup } from './harness.mjs';

const METHOD = 'SCRAM-SHA-256';
const hmac = (key, text) => createHmac('sha256', key).update(text).digest();

export class Scram {
    constructor(user, password) {
        this.password = password;
        this.bare = `n=${user.replaceAll('=', '=3D').replaceAll(',', '=2C')},r=${randomBytes(18).toString('base64')}`;
    }

    /** client-first */
    first() {
        return Buffer.from(`n,,${this.bare}`);
    }

    /** client-final; the password may be another one than was given to the constructor */
    final(serverFirst) {
        const text = serverFirst.toString();
        const { r, s, i } = Object.fromEntries(text.split(',').map((part) => [part[0], part.slice(2)]));
        if (!r.startsWith(this.bare.split('r=')[1])) throw new Error(`not our nonce: ${text}`);
        this.salt = s;
        this.iterations = Number(i);
        const salted = pbkdf2Sync(this.password, Buffer.from(s, 'base64'), this.iterations, 32, 'sha256');
        const clientKey = hmac(salted, 'Client Key');
        const withoutProof = `c=biws,r=${r}`;
        this.message = `${this.bare},${text},${withoutProof}`;
        const signature = hmac(createHash('sha256').update(clientKey).digest(), this.message);
        this.serverSignature = hmac(hmac(salted, 'Server Key'), this.message).toString('base64');
        const proof = Buffer.from(clientKey.map((byte, at) => byte ^ signature[at]));
        return Buffer.from(`${withoutProof},p=${proof.toString('base64')}`);
    }

    /** Has the server the keys, too? */
    verifies(serverFinal) {
        return serverFinal?.toString() === `v=${this.serverSignature}`;
    }
}

/** Options for Node's mqtt client; `scram.verifies` tells what CONNACK is worth. */
export function scramOptions(scram) {
    return { properties: { authenticationMethod: METHOD, authenticationData: scram.first() } };
}

/** What its handleAuth has to be. */
export function handleAuth(scram) {
    return (packet, callback) => callback(null, {
        cmd: 'auth', reasonCode: 0x18,
        properties: { authenticationMethod: METHOD, authenticationData: scram.final(packet.properties.authenticationData) },
    });
}

/** A connection that speaks in packets. */
export class RawClient {
    constructor(port) {
        this.packets = [];
        this.waiting = [];
        this.socket = net.connect(port, '127.0.0.1');
        const parser = mqttPacket.parser({ protocolVersion: 5 });
        parser.on('packet', (packet) => this.arrived(packet));
        this.socket.on('data', (bytes) => parser.parse(bytes));
        this.socket.on('close', () => this.arrived(null));
        this.socket.on('error', () => {});
        cleanup(() => this.socket.destroy());
    }

    arrived(packet) {
        const take = this.waiting.shift();
        if (take) take(packet);
        else this.packets.push(packet);
    }

    /** The next packet; null: the server closed. */
    next() {
        return this.packets.length ? Promise.resolve(this.packets.shift())
            : new Promise((resolve) => this.waiting.push(resolve));
    }

    send(packet) {
        this.socket.write(mqttPacket.generate(packet, { protocolVersion: 5 }));
    }

    auth(reasonCode, data, method = METHOD) {
        this.send({ cmd: 'auth', reasonCode, properties: { authenticationMethod: method, authenticationData: data } });
    }

    /** CONNECT to CONNACK by SCRAM: the last packet that came. */
    async connect(scram, clientId, more = {}) {
        this.begin(scram, clientId, more);
        return this.finish(scram);
    }

    begin(scram, clientId, more = {}) {
        this.send({
            cmd: 'connect', protocolId: 'MQTT', protocolVersion: 5, clean: true, keepalive: 0, clientId, ...more,
            properties: { authenticationMethod: METHOD, authenticationData: scram.first(), ...more.properties },
        });
    }

    async finish(scram) {
        const packet = await this.next();
        if (packet?.cmd !== 'auth') return packet;
        this.auth(0x18, scram.final(packet.properties.authenticationData));
        return this.next();
    }

    /** AUTH 0x19 to its end: the last packet that came. */
    async again(scram) {
        this.auth(0x19, scram.first());
        return this.finish(scram);
    }
}
