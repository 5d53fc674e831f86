// What a scenario is. tests/mqtt_statements.py reads the declarations as text and says in
// docs/mqtt.md which library has shown which statement, so they are written in one form:
//
//   scenario('NAME', {
//       shows: ['5.0 MQTT-1.2.3-4', '3.1.1 MQTT-1.2.3-4'],     the versions it runs under
//       without: { mosquitto: 'why this library cannot' },
//   }, async (t) => { … });
//
// t.connect(options) gives a client (client.mjs) that is ended after the scenario; t.topic(name) and
// t.id(name) are nobody else's; t.v5 tells the version; t.kept are the options of a session that
// outlives its connection.
import assert from 'node:assert/strict';

export const scenarios = [];

export function scenario(name, { shows, without = {}, ...rest }, run) {
    const versions = [['5.0', 5], ['3.1.1', 4]].filter(([v]) => shows.some((s) => s.startsWith(`${v} `)));
    assert.ok(versions.length, `${name} shows nothing`);
    scenarios.push({ name, shows, without, versions: versions.map(([, level]) => level), ...rest, run });
}

/** A message without what is not asked about. */
export function pick(message, ...keys) {
    return Object.fromEntries(keys.map((key) => [key, message[key]]));
}

export async function poll(what, probe) {
    const end = Date.now() + 30000;
    while (!(await probe())) {
        if (Date.now() > end) throw new Error(`waited 30000 ms for ${what}`);
        await new Promise((resolve) => setTimeout(resolve, 20));
    }
}
