/* tests/sim/cluster_life/fibers.c: coroutines. Each has a stack of its own; the main stack decides
 * who goes on. */
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "base/assert.h"
#include "tests/sim/cluster_life/world.h"

#ifdef __SANITIZE_ADDRESS__ /* which has to be told whose stack it is */
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define LEAVES_FOR(keep, bottom, bytes) __sanitizer_start_switch_fiber(keep, bottom, bytes)
#define HAS_COME(kept, bottom, bytes)   __sanitizer_finish_switch_fiber(kept, bottom, bytes)
#else
#define ASAN_UNPOISON_MEMORY_REGION(at, bytes) ((void)(at), (void)(bytes))
#define LEAVES_FOR(keep, bottom, bytes)        ((void)(keep), (void)(bottom), (void)(bytes))
#define HAS_COME(kept, bottom, bytes)          ((void)(kept), (void)(bottom), (void)(bytes))
#endif

#define FIBERS_MAX  256u
#define STACK_BYTES ((size_t)512 << 10)

struct fiber {
    ucontext_t context;
    uint8_t *stack; /* kept from one user to the next */
    bool used, over;
    struct node *node; /* NULL: the simulator's own */
    uint64_t life;     /* of it */
    uint32_t left;     /* outside, so many times */
    const char *name;
    void *(*run)(void *);
    void *arg;
    int64_t at;        /* may go on then; NEVER: when it is woken */
    const void *on;    /* … by this */
    uint32_t *counted; /* as one that waits */
    uint32_t lags_in;  /* so many looks at the clock; 0: it does not … */
    int64_t lag_us;    /* … and for so long */
    void *fake_stack;  /* a sanitizer's */
};

static struct fiber fibers[FIBERS_MAX];
static uint32_t fibers_high; /* none is used from here on */
static ucontext_t main_context;
static const void *main_stack; /* for a sanitizer, as the two below */
static size_t main_stack_bytes;
static void *main_fake_stack;
struct fiber *life__self;
struct world *life__world;

/* So many wait for addresses of a hash: most locks are let go of without anybody waiting. */
static uint32_t waiting[256];

static uint32_t *waiting_for(const void *on)
{
    return &waiting[((uintptr_t)on >> 3 ^ (uintptr_t)on >> 11) & 255];
}

static void fiber_main(void)
{
    HAS_COME(NULL, &main_stack, &main_stack_bytes);
    (void)life__self->run(life__self->arg);
    life__self->left = 1;
    life__die();
}

/* Nobody can still want to join the one that had it. */
static bool is_free(const struct fiber *f)
{
    return !f->used && !(f->over && f->node && f->node->up && f->node->life == f->life);
}

struct fiber *life__spawn(struct node *node, const char *name, void *(*run)(void *), void *arg)
{
    uint32_t at = 0;
    while (at < FIBERS_MAX && !is_free(&fibers[at]))
        at++;
    CHR_ASSERT(at < FIBERS_MAX);
    fibers_high = CHR_MAX(fibers_high, at + 1);
    struct fiber *f = &fibers[at];
    uint8_t *stack = f->stack;
    if (!stack) {
        stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        CHR_ASSERT(stack != MAP_FAILED);
        (void)mprotect(stack, 4096, PROT_NONE); /* too deep: it crashes here */
    }
    ASAN_UNPOISON_MEMORY_REGION(stack + 4096, STACK_BYTES - 4096); /* one was killed on it */
    memset(f, 0, sizeof *f);
    f->stack = stack;
    f->used = true;
    f->node = node;
    f->life = node ? node->life : 0;
    f->name = name;
    f->run = run;
    f->arg = arg;
    f->at = life__world->now + 1 + (int64_t)below(life__world, 50);
    (void)getcontext(&f->context);
    f->context.uc_stack.ss_sp = stack;
    f->context.uc_stack.ss_size = STACK_BYTES;
    makecontext(&f->context, fiber_main, 0);
    return f;
}

struct node *life__node(void)
{
    return life__self && life__self->left == 0 ? life__self->node : NULL;
}

struct node *life__self_node(void)
{
    return life__self ? life__self->node : NULL;
}

void life__leave(void)
{
    if (life__self)
        life__self->left++;
}

void life__enter(void)
{
    if (life__self)
        life__self->left--;
}

void life__name(const char *name)
{
    life__self->name = name;
}

bool life__ended(const struct fiber *f)
{
    return f->over || !f->used;
}

static void switch_to_main(void)
{
    struct fiber *f = life__self;
    life__self = NULL;
    LEAVES_FOR(f->over ? NULL : &f->fake_stack, main_stack, main_stack_bytes);
    (void)swapcontext(&f->context, &main_context);
    HAS_COME(f->fake_stack, NULL, NULL);
}

static void uncount(struct fiber *f)
{
    if (f->counted)
        --*f->counted;
    f->counted = NULL;
}

void life__run(struct fiber *f)
{
    uncount(f);
    f->at = NEVER;
    f->on = NULL;
    life__self = f;
    LEAVES_FOR(&main_fake_stack, f->stack, STACK_BYTES);
    (void)swapcontext(&main_context, &f->context);
    HAS_COME(main_fake_stack, NULL, NULL);
    life__self = NULL;
}

void life__sleep(int64_t us)
{
    life__self->at = life__world->now + CHR_MAX(us, 1);
    switch_to_main();
}

void life__block(const void *on, int64_t until)
{
    life__self->counted = waiting_for(on);
    ++*life__self->counted;
    life__self->on = on;
    life__self->at = until == NEVER ? NEVER : CHR_MAX(until, life__world->now + 1);
    switch_to_main();
}

/* Time passes between the call and the moment the other one runs; sometimes much. */
void life__wake(const void *on, bool all)
{
    struct world *w = life__world;
    if (!*waiting_for(on))
        return;
    for (uint32_t i = 0; i < fibers_high; i++) {
        struct fiber *f = &fibers[i];
        if (!f->used || f->on != on)
            continue;
        f->on = NULL;
        f->at = w->now + 1 + (int64_t)below(w, chance(w, 20) ? 3000 : 30);
        if (!all)
            return;
    }
}

void life__die(void)
{
    life__self->over = true;
    life__self->used = false;
    life__wake(life__self, true); /* who joins it */
    switch_to_main();
    CHR_ASSERT(false);
    __builtin_unreachable();
}

void life__forget_fibers(void)
{
    for (uint32_t i = 0; i < fibers_high; i++)
        fibers[i] = (struct fiber){.stack = fibers[i].stack};
    memset(waiting, 0, sizeof waiting);
}

void life__kill_fibers(struct node *node)
{
    for (uint32_t i = 0; i < fibers_high; i++)
        if (fibers[i].used && fibers[i].node == node && &fibers[i] != life__self) {
            uncount(&fibers[i]);
            fibers[i].used = false;
        }
}

struct fiber *life__next_fiber(int64_t *at)
{
    struct fiber *next = NULL;
    *at = NEVER;
    for (uint32_t i = 0; i < fibers_high; i++) {
        struct fiber *f = &fibers[i];
        if (!f->used || f->at == NEVER)
            continue;
        int64_t due = f->node ? CHR_MAX(f->at, f->node->paused_until) : f->at;
        if (due < *at) {
            *at = due;
            next = f;
        }
    }
    return next;
}

void life__breathe(void)
{
    struct world *w = life__world;
    if (!chance(w, (uint32_t)w->preempt_in_1000))
        return;
    if (w->profile->pauses && goes_wrong(w, CLUSTER_LIFE_PAUSES, 3)) {
        /* Stopped here, between any two instructions, and for so long. */
        w->report->pauses++;
        life__self->node->paused_until = w->now + (int64_t)below(w, 1200000);
    }
    /* Or this thread alone does not get its turn, while the others of its process go on. */
    bool starves = w->profile->pauses && goes_wrong(w, CLUSTER_LIFE_PAUSES, 2);
    life__sleep(1 + (int64_t)below(w, starves ? 600000 : 40));
}

void life__lag(uint32_t nth, int64_t us)
{
    life__self->lags_in = nth;
    life__self->lag_us = us;
}

void life__lags(void)
{
    if (life__self->lags_in && --life__self->lags_in == 0)
        life__sleep(life__self->lag_us);
}

void life__trace_fibers(void)
{
    for (uint32_t i = 0; i < fibers_high; i++)
        if (fibers[i].used && fibers[i].node)
            life__trace(life__world, fibers[i].node, "%s %s", fibers[i].name,
                        fibers[i].at != NEVER ? "sleeps" : "waits");
}
