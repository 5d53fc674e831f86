// MQTT as other people's libraries speak it: each scenario of foreign/*.mjs with libmosquitto, paho
// C and Node's mqtt, in both versions of the standard. All of them run at once, against a node and
// one with strict limits, when the first test asks; each test then reports its own.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from './lib/harness.mjs';
import { BUILD, Chronos, tempDir } from './lib/chronos.mjs';
import { connect, libraries } from './foreign/client.mjs';
import { scenarios } from './foreign/scenario.mjs';
import './foreign/sessions.mjs';
import './foreign/messages.mjs';
import './foreign/subscriptions.mjs';

/* Runs at a time: enough to wait for expiries together, few enough for two cores. */
const WORKERS = 12;

async function runOne(nodes, library, version, scenario) {
    const clients = [], place = `${scenario.place}-${library}-${version}`;
    const t = {
        library,
        version,
        v5: version === 5,
        kept: version === 5 ? { clean: false, session: 1000 } : { clean: false },
        topic: (name) => `foreign/${place}/${name}`,
        id: (name) => `${place}-${name}`,
        async connect(options) {
            const client = await connect(library, BUILD, nodes[scenario.node ?? 'plain'].port, { version, ...options });
            clients.push(client);
            return client;
        },
    };
    try {
        await scenario.run(t);
    } catch (err) {
        err.message = `${libraries[library]}, ${version === 5 ? '5.0' : '3.1.1'}: ${err.message}`;
        throw err;
    } finally {
        await Promise.all(clients.map((c) => c.end()));
    }
}

/** Map of scenario: list of errors. */
async function runAll() {
    const nodes = {
        plain: new Chronos(join(tempDir(), 'data'), ['--loops', '1']),
        strict: new Chronos(join(tempDir(), 'data'), ['--loops', '1', '--max-keepalive', '1s', '--receive-maximum', '5']),
    };
    await Promise.all(Object.values(nodes).map((node) => node.start()));
    const wanted = new RegExp(process.env.FILTER ?? '');
    const runs = scenarios.filter(({ name }) => wanted.test(`foreign: ${name}`)).flatMap((scenario) =>
        scenario.versions.flatMap((version) =>
            Object.keys(libraries)
                .filter((library) => !scenario.without[library])
                .map((library) => ({ library, version, scenario }))));
    const errors = new Map(scenarios.map((scenario) => [scenario, []]));
    await Promise.all(Array.from({ length: WORKERS }, async () => {
        for (let run; (run = runs.shift());)
            await runOne(nodes, run.library, run.version, run.scenario)
                .catch((err) => errors.get(run.scenario).push(err));
    }));
    return errors;
}

let outcome;
for (const [place, scenario] of scenarios.entries()) {
    scenario.place = place;
    test(scenario.name, async () => {
        outcome ??= runAll();
        const errors = (await outcome).get(scenario);
        if (errors.length) assert.fail(errors.map((err) => err.stack).join('\n'));
    }, { timeoutMs: 240000 });
}
