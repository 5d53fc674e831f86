/* bench/bench_trie.c: the subscription trie by itself, without a network: filters added and removed
 * per second, topics matched per second, and the memory of each filter.
 *
 *   bench_trie [FILTERS 1000000] [SEED 1] [MATCHES 500000]
 *
 * The filters of filters.h, dealt out to 100 sessions of one loop. Topics are matched in no order;
 * `hit` matches one to three filters, `miss` none. Then the worst that a set of filters can do: all
 * of {a,+}/…/{a,+}/b, and the topic a/…/a, which matches none of them but has to look at each
 * beginning. */
#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/bytes.h"
#include "base/hash.h"
#include "bench/filters.h"
#include "broker/net/loop.h"
#include "broker/session/session.h"
#include "broker/session/subscriptions.h"

#define SESSIONS     100u
#define WORST_LEVELS 16u

static struct broker_loop *loop;
static struct session *sessions[SESSIONS];

/* CPU time of this thread, so that others on the machine count as little as can be. */
static uint64_t now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void add(struct subscriptions *subs, uint32_t i, const char *text, size_t len)
{
    struct subscription_options options = {0};
    bool existed;
    if (subscriptions_add(subs, sessions[i % SESSIONS], CHR_LIT(""), chr_slice_of(text, len),
                          &options, &existed)) {
        fprintf(stderr, "out of memory\n");
        exit(1);
    }
}

static void match(struct subscriptions *subs, const char *name, uint32_t first, uint32_t devices,
                  uint32_t count, uint64_t seed)
{
    struct match m = {0};
    uint64_t found = 0, start_ns = now_ns(), texts_ns = 0;
    for (int texts_only = 1; texts_only >= 0; texts_only--) {
        start_ns = now_ns();
        for (uint32_t i = 0; i < count; i++) {
            char text[FILTERS_TEXT_MAX];
            uint32_t device = first + (uint32_t)(chr_hash_u64(i ^ seed << 32) % devices);
            size_t len = filters_topic(seed, device, i & 1, text);
            if (texts_only)
                continue;
            if (subscriptions_match(subs, chr_slice_of(text, len), loop, &m))
                exit(1);
            found += m.own_count;
        }
        if (texts_only)
            texts_ns = now_ns() - start_ns; /* making the texts is not what is measured */
    }
    double ns = (double)(now_ns() - start_ns - texts_ns) / count;
    printf("%-6s %8.0f ns per topic, %9.0f/s, %.2f sessions found\n", name, ns, 1e9 / ns,
           (double)found / count);
    match_free(&m);
}

/* All filters of {a,+}, WORST_LEVELS times, and then b. */
static void worst(void)
{
    struct subscriptions *subs;
    struct match m = {0};
    char text[2 * WORST_LEVELS + 2];

    if (subscriptions_new(&subs))
        exit(1);
    for (uint32_t i = 0; i < 1u << WORST_LEVELS; i++) {
        for (uint32_t l = 0; l < WORST_LEVELS; l++) {
            text[2 * l] = i >> l & 1 ? '+' : 'a';
            text[2 * l + 1] = '/';
        }
        text[2 * WORST_LEVELS] = 'b';
        add(subs, i, text, 2 * WORST_LEVELS + 1);
    }
    for (uint32_t l = 0; l <= WORST_LEVELS; l++)
        text[2 * l] = 'a';
    uint64_t start_ns = now_ns();
    for (int i = 0; i < 10; i++)
        if (subscriptions_match(subs, chr_slice_of(text, 2 * WORST_LEVELS + 1), loop, &m))
            exit(1);
    double ns = (double)(now_ns() - start_ns) / 10;
    printf("worst  %8.0f ns per topic with %u filters: %.1f ns per filter\n", ns,
           1u << WORST_LEVELS, ns / (1u << WORST_LEVELS));
    match_free(&m);
    for (uint32_t i = 0; i < SESSIONS; i++)
        subscriptions_remove_all(subs, sessions[i]);
    subscriptions_free(subs);
}

int main(int argc, char **argv)
{
    uint32_t filters = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 1000000;
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    uint32_t matches = argc > 3 ? (uint32_t)strtoul(argv[3], NULL, 10) : 500000;
    struct subscriptions *subs;
    filters -= filters % FILTERS_PER_DEVICE;
    loop = aligned_alloc(CHR_CACHE_LINE, chr_round_up(sizeof *loop, CHR_CACHE_LINE));
    if (!filters || !matches || !loop || subscriptions_new(&subs))
        return 1;
    memset(loop, 0, sizeof *loop);
    for (uint32_t i = 0; i < SESSIONS; i++) {
        sessions[i] = calloc(1, sizeof *sessions[i]);
        if (!sessions[i])
            return 1;
        sessions[i]->number = i + 1;
        sessions[i]->loop = loop;
    }
    char text[FILTERS_TEXT_MAX];
    uint64_t text_bytes = 0;
    printf("%u filters of %u sessions, half of them with wildcards, seed %" PRIu64 "\n", filters,
           SESSIONS, seed);
    struct mallinfo2 before = mallinfo2();
    uint64_t start_ns = now_ns();
    for (uint32_t i = 0; i < filters; i++) {
        size_t len = filters_text(seed, i, text);
        text_bytes += len;
        add(subs, i, text, len);
    }
    double ns = (double)(now_ns() - start_ns) / filters;
    struct mallinfo2 after = mallinfo2();
    printf("add    %8.0f ns per filter, %8.0f/s\n", ns, 1e9 / ns);
    printf("memory %8.1f bytes per filter (its text: %.1f)\n",
           (double)(after.uordblks + after.hblkhd - before.uordblks - before.hblkhd) / filters,
           (double)text_bytes / filters);
    uint32_t devices = filters / FILTERS_PER_DEVICE;
    match(subs, "hit", 0, devices, matches, seed);
    match(subs, "miss", devices, devices, matches, seed);

    start_ns = now_ns();
    for (uint32_t i = 0; i < filters; i += 2) {
        size_t len = filters_text(seed, i, text);
        if (!subscriptions_remove(subs, sessions[i % SESSIONS], CHR_LIT(""),
                                  chr_slice_of(text, len)))
            return 1;
    }
    ns = (double)(now_ns() - start_ns) / (filters / 2);
    printf("remove %8.0f ns per filter, %8.0f/s\n", ns, 1e9 / ns);
    start_ns = now_ns();
    for (uint32_t i = 0; i < SESSIONS; i++)
        subscriptions_remove_all(subs, sessions[i]);
    ns = (double)(now_ns() - start_ns) / (filters / 2);
    printf("clear  %8.0f ns per filter, %8.0f/s\n", ns, 1e9 / ns);
    subscriptions_free(subs);
    worst();
    for (uint32_t i = 0; i < SESSIONS; i++)
        free(sessions[i]);
    free(loop);
    return 0;
}
