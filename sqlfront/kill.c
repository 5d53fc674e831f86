/* sqlfront/kill.c: KILL CLIENT: what an operator does to a client, in SQL. */
#include "sqlfront/internal.h"

bool sql__run_kill_client(struct sql_query *q, const struct sql_stmt *stmt, struct sql_done *done)
{
    const struct sql_host *host = &q->session->host;
    if (!sql__may_write(q, NULL, SQL_NO_POS))
        return false;
    if (!sql__may_define(q, "KILL CLIENT", stmt->pos))
        return false;
    if (!host->kill_client)
        return sql__fail(q, "0A000", stmt->pos, "KILL CLIENT is not supported here");
    struct sql_host_wait wait = {.cancel = &q->session->cancel, .deadline_us = q->deadline_us};
    chr_err err = host->kill_client(host->ctx, stmt->name, &wait);
    if (!sql__check(q))
        return false;
    if (err == CHR_ENOTFOUND)
        return sql__fail(q, "42704", stmt->name_pos, "no client \"%.*s\" is connected",
                         CHR_SLICE_ARGS(stmt->name));
    if (err)
        return sql__fail_err(q, err, NULL);
    done->row_count = 1;
    return true;
}
