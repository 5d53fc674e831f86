// The wire as text: tests/e2e/mqtt/*.txt, each line by its rule's number, with one loop and several.
import { readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import assert from 'node:assert/strict';
import { test } from './lib/harness.mjs';
import { BIN, BUILD, run } from './lib/chronos.mjs';

const dir = join(dirname(fileURLToPath(import.meta.url)), 'mqtt');
for (const file of readdirSync(dir).filter((f) => f.endsWith('.txt')).sort()) {
    for (const loops of [1, 3]) {
        test(`mqtt/${file}, ${loops} loop${loops > 1 ? 's' : ''}`, async () => {
            const result = await run(join(BUILD, 'tests', 'chr_test_mqtt_text'),
                [BIN, '--flags', `--loops ${loops}`, join(dir, file)], { timeoutMs: 180000 });
            assert.equal(result.code, 0, `${result.stdout}${result.stderr}`);
        }, { timeoutMs: 200000 });
    }
}
