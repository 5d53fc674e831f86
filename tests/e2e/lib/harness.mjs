// test(), skip(), and waiting for conditions instead of sleeping.
const tests = [];

export function test(name, fn, { timeoutMs = 120000 } = {}) {
    tests.push({ name, fn, timeoutMs });
}

export class Skip extends Error {}

/** Ends the test as skipped, with the reason. */
export function skip(why) {
    throw new Skip(why);
}

const cleanups = [];

/** fn runs after the test, whatever its outcome; last registered first. */
export function cleanup(fn) {
    cleanups.push(fn);
}

export async function runTests(group) {
    let failed = 0;
    for (const { name, fn, timeoutMs } of tests.splice(0)) {
        const full = `${group}: ${name}`;
        if (process.env.FILTER && !new RegExp(process.env.FILTER).test(full)) continue;
        let timer;
        const timeout = new Promise((_, reject) => {
            timer = setTimeout(() => reject(new Error(`timed out after ${timeoutMs} ms`)), timeoutMs);
        });
        try {
            await Promise.race([fn(), timeout]);
            console.log(`ok ${full}`);
        } catch (err) {
            if (err instanceof Skip) {
                console.log(`skip ${full} ${err.message}`);
            } else {
                failed++;
                console.log(`not ok ${full}`);
                console.error(err?.stack ?? err);
            }
        } finally {
            clearTimeout(timer);
            for (const fn of cleanups.splice(0).reverse()) {
                try {
                    await fn();
                } catch (err) {
                    console.error(`cleanup of ${full}: ${err?.stack ?? err}`);
                }
            }
        }
    }
    return failed;
}

/** Calls probe() until it returns something truthy; throws with `what` after timeoutMs. */
export async function until(what, probe, timeoutMs = 20000) {
    const end = Date.now() + timeoutMs;
    for (;;) {
        const value = await probe();
        if (value) return value;
        if (Date.now() > end) throw new Error(`waited ${timeoutMs} ms for ${what}`);
        await new Promise((resolve) => setTimeout(resolve, 20));
    }
}
