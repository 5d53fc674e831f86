/* tests/broker/session/test_inspect.c: sessions gathered from loops that go on meanwhile: each
 * once, also when the table grows under the cursor; workers that give up; limits. */
#include "kit.h"

#include <pthread.h>
#include <sched.h>

#include "broker/net/ask.h"
#include "broker/session/inspect.h"
#include "broker/session/kick.h"

static void cursor_meets_each_bucket_once(void **state)
{
    (void)state;
    for (uint64_t count = 1; count <= 1024; count *= 2) {
        uint8_t seen[1024] = {0};
        uint64_t cursor = 0, steps = 0;
        do {
            assert_true(cursor < count);
            assert_int_equal(seen[cursor]++, 0);
            cursor = inspect_next_bucket(cursor, count - 1);
            steps++;
        } while (cursor);
        assert_int_equal(steps, count);
    }
}

/* Keys in buckets by their lowest bits; the table doubles at any step. */
static void cursor_survives_growth(void **state)
{
    (void)state;
    for (uint32_t when = 1; when < 200; when++) {
        uint8_t seen[1000] = {0};
        uint64_t mask = 15, cursor = 0;
        uint32_t steps = 0;
        do {
            for (uint64_t key = 0; key < CHR_COUNT_OF(seen); key++)
                seen[key] += (key * 2654435761u & mask) == (cursor & mask);
            cursor = inspect_next_bucket(cursor & mask, mask);
            if (++steps % when == 0 && mask < 511)
                mask = mask * 2 + 1;
        } while (cursor);
        for (size_t key = 0; key < CHR_COUNT_OF(seen); key++)
            assert_int_equal(seen[key], 1);
    }
}

/* ---- With loops that run ----------------------------------------------------------------------
 */

struct world {
    struct kit kit;
    pthread_t threads[KIT_LOOPS];
    _Atomic bool stop;
    _Atomic bool grow; /* a session comes with each turn */
    _Atomic uint32_t made;
    struct loop_thread {
        struct world *world;
        uint32_t loop;
    } args[KIT_LOOPS];
};

static void *loop_main(void *arg)
{
    const struct loop_thread *t = arg;
    struct world *w = t->world;
    while (!atomic_load(&w->stop)) {
        loop_take_last_mail(w->kit.loops[t->loop]);
        if (atomic_load(&w->grow) && atomic_load(&w->made) < 20000) {
            char id[32];
            snprintf(id, sizeof id, "late-%u-%u", t->loop, atomic_fetch_add(&w->made, 1));
            kit_session(&w->kit, t->loop, id)->present = true;
        }
        sched_yield();
    }
    return NULL;
}

static void start(struct world *w)
{
    for (uint32_t i = 0; i < KIT_LOOPS; i++) {
        w->args[i] = (struct loop_thread){w, i};
        assert_int_equal(pthread_create(&w->threads[i], NULL, loop_main, &w->args[i]), 0);
    }
}

static void stop(struct world *w)
{
    atomic_store(&w->stop, true);
    for (uint32_t i = 0; i < KIT_LOOPS; i++)
        pthread_join(w->threads[i], NULL);
}

#define SESSIONS 5000

static void populate(struct world *w)
{
    for (uint32_t i = 0; i < SESSIONS; i++) {
        char id[32];
        snprintf(id, sizeof id, "session-%u", i);
        kit_session(&w->kit, i % KIT_LOOPS, id)->present = true;
    }
}

struct tally {
    uint8_t seen[SESSIONS];
    uint32_t count, stop_at;
};

static chr_err count(void *arg, const struct session_info *info)
{
    struct tally *t = arg;
    unsigned i;
    char id[32];
    snprintf(id, sizeof id, "%.*s", CHR_SLICE_ARGS(info->client_id));
    if (sscanf(id, "session-%u", &i) == 1)
        t->seen[i]++;
    return ++t->count == t->stop_at ? CHR_EINVAL : CHR_OK;
}

static const atomic_bool never = false, always = true;

static void each_once_while_others_come(void **state)
{
    (void)state;
    static struct world w;
    memset(&w, 0, sizeof w);
    kit_init(&w.kit);
    populate(&w);
    atomic_store(&w.grow, true);
    start(&w);
    struct sql_host_wait wait = {.cancel = &never};
    for (int round = 0; round < 20; round++) {
        struct tally t = {.count = 0};
        assert_int_equal(inspect_sessions(&w.kit.node, false, 64u << 20, &wait, count, &t), 0);
        for (uint32_t i = 0; i < SESSIONS; i++)
            assert_int_equal(t.seen[i], 1);
        t = (struct tally){.count = 0};
        assert_int_equal(inspect_sessions(&w.kit.node, true, 64u << 20, &wait, count, &t), 0);
        assert_int_equal(t.count, 0); /* nobody is connected */
    }
    /* each() ends it */
    struct tally t = {.stop_at = 3};
    assert_int_equal(inspect_sessions(&w.kit.node, false, 64u << 20, &wait, count, &t), CHR_EINVAL);
    assert_int_equal(t.count, 3);
    /* Limits. */
    t = (struct tally){.count = 0};
    assert_int_equal(inspect_sessions(&w.kit.node, false, 10000, &wait, count, &t), CHR_ENOMEM);
    assert_int_equal(t.count, 0);
    stop(&w);
    kit_free(&w.kit);
}

static void given_up(void **state)
{
    (void)state;
    static struct world w;
    memset(&w, 0, sizeof w);
    kit_init(&w.kit);
    populate(&w);
    w.kit.node.clock = chr_clock_system();
    /* Nobody takes the letters: the worker does not wait for ever. */
    struct tally t = {.count = 0};
    struct sql_host_wait wait = {.cancel = &always};
    assert_int_equal(inspect_sessions(&w.kit.node, false, 64u << 20, &wait, count, &t),
                     CHR_ECANCELLED);
    wait = (struct sql_host_wait){&never, chr_clock_mono_us(w.kit.node.clock)};
    assert_int_equal(inspect_sessions(&w.kit.node, false, 64u << 20, &wait, count, &t),
                     CHR_ETIMEDOUT);
    (void)kit_session(&w.kit, 1, "somebody");
    assert_int_equal(kick_client(&w.kit.node, CHR_LIT("somebody"), &wait), CHR_ETIMEDOUT);
    assert_int_equal(t.count, 0);
    /* Who takes them later finds that out and gives everything back. */
    for (uint32_t i = 0; i < KIT_LOOPS; i++)
        loop_take_last_mail(w.kit.loops[i]);
    for (uint32_t i = 0; i < KIT_LOOPS; i++)
        assert_null(w.kit.loops[i]->mail_head);
    kit_free(&w.kit);
}

static chr_err keep(void *arg, const struct session_info *info)
{
    struct session_info *out = arg;
    *out = *info;
    return CHR_OK;
}

static void what_is_told(void **state)
{
    (void)state;
    static struct world w;
    memset(&w, 0, sizeof w);
    kit_init(&w.kit);
    struct session *s = kit_session(&w.kit, 1, "it");
    struct conn *conn = kit_connect(s, MQTT_V5);
    conn->opened_us = s->loop->now_mono_us - 5000000;
    s->loop->now_wall_us = INT64_C(1733858000000000);
    conn->keep_alive_s = 60;
    conn->clean_start = true;
    strcpy(conn->address, "10.1.2.3:4");
    start(&w);
    struct sql_host_wait wait = {.cancel = &never};
    struct session_info info = {0};
    assert_int_equal(inspect_sessions(&w.kit.node, true, 1u << 20, &wait, keep, &info), 0);
    assert_true(info.connected);
    assert_true(info.clean_start);
    assert_int_equal(info.keep_alive_s, 60);
    assert_int_equal(info.connected_us, INT64_C(1733857995000000));
    assert_int_equal(info.expires_us, INT64_MAX);
    assert_string_equal(info.address, "10.1.2.3:4");
    assert_ptr_equal(info.listener, &w.kit.listener);
    /* Kicked: DISCONNECT with 0x98, then closed. */
    assert_int_equal(kick_client(&w.kit.node, CHR_LIT("nobody"), &wait), CHR_ENOTFOUND);
    assert_int_equal(kick_client(&w.kit.node, CHR_LIT("it"), &wait), CHR_OK);
    assert_int_equal(conn->out.ptr[0], 0xe0);
    assert_int_equal(conn->out.ptr[2], 0x98);
    assert_int_equal(conn->state, CONN_CLOSING);
    assert_int_equal(kick_client(&w.kit.node, CHR_LIT("it"), &wait), CHR_ENOTFOUND);
    stop(&w);
    s->expiry_s = 30;
    kit_disconnect(s);
    s->present = true;
    memset(&info, 0, sizeof info);
    atomic_store(&w.stop, false);
    start(&w);
    assert_int_equal(inspect_sessions(&w.kit.node, true, 1u << 20, &wait, keep, &info), 0);
    assert_int_equal(info.number, 0); /* not a client any more */
    assert_int_equal(inspect_sessions(&w.kit.node, false, 1u << 20, &wait, keep, &info), 0);
    assert_false(info.connected);
    assert_int_equal(info.expires_us, INT64_C(1733858030000000));
    stop(&w);
    kit_free(&w.kit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cursor_meets_each_bucket_once),
        cmocka_unit_test(cursor_survives_growth),
        cmocka_unit_test(each_once_while_others_come),
        cmocka_unit_test(given_up),
        cmocka_unit_test(what_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
