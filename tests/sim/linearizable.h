/* tests/sim/linearizable.h: could a history of concurrent operations be that of one object, on
 * which each took effect at one moment between its invocation and its response?
 *
 * Wing & Gong, "Testing and Verifying Concurrent Objects", 1993, with Lowe's memory of what was
 * tried
 * ("Testing for linearizability", 2017), as Porcupine does it: take an operation that began before
 * any of the rest was over, see what it does to the object, go on with the others, come back when
 * that leads nowhere; a pair of (operations taken, state) that led nowhere once does so again.
 *
 * An operation without a known outcome (its client heard no answer) may have taken effect at any
 * time after its invocation, or never. The search is exponential in how many operations overlap, so
 * histories are checked key by key, and the work is bounded. */
#ifndef CHR_TESTS_SIM_LINEARIZABLE_H
#define CHR_TESTS_SIM_LINEARIZABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct linearizable_op {
    int64_t invoked, returned; /* at the same time as another's: they overlap */
    bool unknown;              /* no outcome: returned and result mean nothing */
    uint32_t kind;             /* the model's */
    uint64_t argument, result;
};

#define LINEARIZABLE_STATE_WORDS 4u
struct linearizable_state {
    uint64_t words[LINEARIZABLE_STATE_WORDS]; /* all zero at first */
};

struct linearizable_model {
    /* Does the operation to the state; false: there it can't have this result. One without an
     * outcome is always possible. */
    bool (*does)(struct linearizable_state *state, const struct linearizable_op *op);
    uint32_t reads; /* bit k: an operation of kind k changes no state */
};

/* One value. READ: result. WRITE: argument. */
enum { LINEARIZABLE_READ, LINEARIZABLE_WRITE };
extern const struct linearizable_model linearizable_register;

/* A set that only grows, of numbers below 256. ADD: argument. HAS: argument, result 0 or 1.
 * COUNT: result. */
enum { LINEARIZABLE_ADD, LINEARIZABLE_HAS, LINEARIZABLE_COUNT };
extern const struct linearizable_model linearizable_set;

/* A list that only grows. APPEND: argument, result: how many there were before. SEEN: argument: how
 * many, result: linearizable_list_hash of them, in order. */
enum { LINEARIZABLE_APPEND, LINEARIZABLE_SEEN };
extern const struct linearizable_model linearizable_list;
uint64_t linearizable_list_hash(uint64_t hash_before, uint64_t item); /* of nothing: 0 */

enum linearizable_answer { LINEARIZABLE_NO, LINEARIZABLE_YES, LINEARIZABLE_GAVE_UP };

/* work_max: so often an operation is tried on a state. */
enum linearizable_answer linearizable_check(const struct linearizable_model *model,
                                            const struct linearizable_op *ops, size_t count,
                                            uint64_t work_max);

#endif
