/* sqlfront/alter_cluster.c: ALTER CLUSTER ADD, PROMOTE, REMOVE, TRANSFER: what an operator does to
 * a cluster, in SQL. */
#include "sqlfront/internal.h"

static const char *const actions[] = {[SQL_CLUSTER_ADD] = "add",
                                      [SQL_CLUSTER_PROMOTE] = "promote",
                                      [SQL_CLUSTER_REMOVE] = "remove",
                                      [SQL_CLUSTER_TRANSFER] = "transfer"};

static bool parse_action(struct sql_query *q, const struct sql_stmt *stmt,
                         enum sql_cluster_action *action)
{
    for (size_t i = 0; i < CHR_COUNT_OF(actions); i++)
        if (chr_slice_eq(stmt->table, chr_slice_cstr(actions[i]))) {
            *action = (enum sql_cluster_action)i;
            return true;
        }
    sql__fail(q, "42601", stmt->table_pos, "ALTER CLUSTER takes ADD, PROMOTE, REMOVE or TRANSFER");
    const char *near = sql__nearest(stmt->table, actions, CHR_COUNT_OF(actions));
    if (near)
        sql__hint(q, "Did you mean \"%s\"?", near);
    return false;
}

/* NAME=HOST:PORT */
static bool split(struct sql_query *q, const struct sql_stmt *stmt, chr_slice *name,
                  chr_slice *address)
{
    const uint8_t *equals = stmt->name.len ? memchr(stmt->name.ptr, '=', stmt->name.len) : NULL;
    if (!equals)
        return sql__fail(q, "22023", stmt->name_pos, "ADD takes 'NAME=HOST:PORT'");
    size_t len = (size_t)(equals - stmt->name.ptr);
    *name = chr_slice_of(stmt->name.ptr, len);
    *address = chr_slice_of(equals + 1, stmt->name.len - len - 1);
    return true;
}

static const char *sqlstate(chr_err err)
{
    switch (err) {
    case CHR_ENOTFOUND:
        return "42704";
    case CHR_EEXIST:
        return "42710";
    case CHR_EINVAL:
    case CHR_EFULL:
        return "22023";
    case CHR_ESTALE:
    case CHR_EFOREIGN:
    case CHR_EVERSION:
        return "55000";
    case CHR_EBUSY:
        return "55006";
    case CHR_ECLOSED:
        return "08006";
    default:
        return sql_sqlstate_of(err);
    }
}

bool sql__run_alter_cluster(struct sql_query *q, const struct sql_stmt *stmt, struct sql_done *done)
{
    const struct sql_host *host = &q->session->host;
    enum sql_cluster_action action;
    chr_slice name = stmt->name, address = {0};
    if (!sql__may_write(q, NULL, SQL_NO_POS) || !sql__may_define(q, "ALTER CLUSTER", stmt->pos))
        return false;
    if (!parse_action(q, stmt, &action))
        return false;
    if (action == SQL_CLUSTER_ADD && !split(q, stmt, &name, &address))
        return false;
    if (!host->alter_cluster)
        return sql__fail(q, "0A000", stmt->pos,
                         "this is a single node; a cluster is made by `chronos node`");
    struct sql_host_wait wait = {.cancel = &q->session->cancel, .deadline_us = q->deadline_us};
    struct chr_errmsg msg = {{0}};
    chr_err err = host->alter_cluster(host->ctx, action, name, address, &wait, &msg);
    if (!sql__check(q))
        return false;
    if (err)
        return sql__fail(q, sqlstate(err), stmt->name_pos, "%s", msg.text);
    struct sql_column column = {CHR_LIT("result"), DB_STRING};
    const char *cell = msg.text;
    done->row_count = 1;
    return sql__send_texts(q, &column, 1, &cell, 1);
}
