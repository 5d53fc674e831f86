// Ports for servers that start later, or start again.
import { randomInt } from 'node:crypto';
import { createServer } from 'node:net';

export const isFree = (port) => new Promise((resolve) => {
    const server = createServer();
    server.on('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
});

/** Ports that are free now, below the range that the system gives to outgoing connections: one of
 *  these could have it by the time it is listened at. */
export async function freePorts(count) {
    const ports = new Set();
    while (ports.size < count) {
        const port = randomInt(15000, 32768);
        if (await isFree(port)) ports.add(port);
    }
    return [...ports];
}

export const freePort = async () => (await freePorts(1))[0];
