/* sqlfront/bind_internal.h: between bind_expr.c and bind_call.c alone. */
#ifndef CHR_SQLFRONT_BIND_INTERNAL_H
#define CHR_SQLFRONT_BIND_INTERNAL_H

#include "sqlfront/bind.h"

/* The one type of several expressions, all converted to it. false: error set, or none (*type
 * UNKNOWN, no error) when they cannot agree. */
bool sql__unify(struct sql_query *q, struct sql_expr **args, uint32_t count, uint32_t first,
                uint32_t step, enum db_type *type);
/* Sets 42883 for an operator over types it does not take; returns NULL. */
struct sql_expr *sql__no_operator(struct sql_query *q, int op, uint32_t pos,
                                  const struct sql_expr *a, const struct sql_expr *b);
struct sql_expr **sql__args2(struct sql_query *q, struct sql_expr *a, struct sql_expr *b);
struct sql_expr *sql__bind_call(struct sql_binder *b, const struct sql_ast *ast);
/* A function or operator by name; NULL without an error: none takes these arguments. */
struct sql_expr *sql__bind_call_named(struct sql_binder *b, const char *name, uint32_t pos,
                                      struct sql_expr **args, uint32_t count);

#endif
