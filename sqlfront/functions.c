/* sqlfront/functions.c: looks functions up by name. */
#include "sqlfront/functions.h"

static const struct sql_function_list *const lists[] = {
    &sql__string_functions,
    &sql__math_functions,
    &sql__time_functions,
};

void sql__functions_named(chr_slice name, bool (*visit)(void *ctx, const struct sql_function *f),
                          void *ctx)
{
    for (size_t l = 0; l < CHR_COUNT_OF(lists); l++)
        for (size_t i = 0; i < lists[l]->count; i++) {
            const struct sql_function *f = &lists[l]->functions[i];
            if (f->name[0] == (char)name.ptr[0] && chr_slice_eq(name, chr_slice_cstr(f->name)) &&
                !visit(ctx, f))
                return;
        }
}

const char *sql__function_nearest(chr_slice name)
{
    static const char *const others[] = {"count",  "sum",      "avg",    "min",      "max",
                                         "first",  "last",     "stddev", "variance", "coalesce",
                                         "nullif", "greatest", "least",  "version"};
    const char *best = sql__nearest(name, others, CHR_COUNT_OF(others));
    unsigned best_distance = best ? sql__edit_distance(name, chr_slice_cstr(best), 2) : 3;
    for (size_t l = 0; l < CHR_COUNT_OF(lists); l++)
        for (size_t i = 0; i < lists[l]->count; i++) {
            const char *candidate = lists[l]->functions[i].name;
            if (candidate[1] == '\0' || candidate[0] == '|')
                continue;
            unsigned d = sql__edit_distance(name, chr_slice_cstr(candidate), 2);
            if (d < best_distance && d < name.len) {
                best = candidate;
                best_distance = d;
            }
        }
    return best;
}
