/* sqlfront/write.c: what every write shares: an atomic entry, proposed once, its outcome told. */
#include "sqlfront/internal.h"
#include "sqlfront/relation.h"

bool sql__may(struct sql_query *q, const struct db_table_def *table, uint8_t privileges,
              uint32_t pos)
{
    const struct sql_session *s = q->session;
    if (CHR_LIKELY(s->role == DB_ROLE_ADMIN))
        return true;
    uint8_t missing =
        (uint8_t)(privileges & ~db_table_privileges(table, chr_slice_cstr(s->user), s->role));
    if (!missing)
        return true;
    sql__fail(q, "42501", pos, "permission denied for table \"%s\"", table->name);
    if (sql__is_relation(table))
        return false; /* nobody can grant it */
    uint8_t first = (uint8_t)(missing & -missing);
    sql__hint(q, "It takes %s, which an admin can GRANT.", db_privilege_name(first));
    return false;
}

bool sql__may_define(struct sql_query *q, const char *what, uint32_t pos)
{
    if (CHR_LIKELY(q->session->role == DB_ROLE_ADMIN))
        return true;
    return sql__fail(q, "42501", pos, "permission denied: %s is for the role admin", what);
}

bool sql__may_write(struct sql_query *q, const struct db_table_def *table, uint32_t pos)
{
    if (q->session->read_only)
        return sql__fail(q, "42501", SQL_NO_POS, "this user may only read");
    if (table && sql__is_relation(table))
        return sql__fail(q, "42809", pos,
                         "\"%s\" shows what the node is doing: it is no table and can be read only",
                         table->name);
    if (table && table->system)
        return sql__fail(q, "42501", pos,
                         "table \"%s\" is kept by the node itself: it can be read "
                         "only",
                         table->name);
    return true;
}

bool sql__write_begin(struct sql_query *q, struct db_entry *entry)
{
    db_entry_init(entry, DB_ENTRY_BYTES_MAX);
    db_entry_begin(entry, DB_ENTRY_ATOMIC, 0);
    if (q->session->host.entry_begin)
        q->session->host.entry_begin(q->session->host.ctx, entry, q->index);
    return true;
}

bool sql__write_propose(struct sql_query *q, struct db_entry *entry, struct sql_applied *applied)
{
    chr_err err = db_entry_end(entry);
    if (err == CHR_EFULL) {
        sql__fail(q, "54000", SQL_NO_POS,
                  "the statement changes more than fits one log entry (4 MiB)");
        sql__hint(q, "Split it into several statements.");
        return false;
    }
    if (err)
        return sql__fail_err(q, err, NULL);
    if (!sql__check(q)) /* last chance: what is proposed is not called back */
        return false;
    memset(applied, 0, sizeof *applied);
    err = q->session->host.propose(q->session->host.ctx, chr_buf_slice(&entry->bytes), applied);
    if (err)
        return sql__fail_err(q, err, NULL);
    q->apply_index = applied->index;
    if (applied->err && applied->err != CHR_EEXIST)
        return sql__fail_err(q, applied->err, NULL);
    return true;
}

bool sql__write_check(struct sql_query *q, const struct sql_applied *applied,
                      const struct db_table_def *table)
{
    switch (applied->op_err) {
    case CHR_OK:
        return true;
    case CHR_EDUPKEY:
        sql__fail(q, sql_sqlstate_of(CHR_EDUPKEY), SQL_NO_POS,
                  "duplicate key value violates the primary key of table \"%s\"", table->name);
        if (applied->detail[0])
            sql__detail(q, "Key %s already exists.", applied->detail);
        break;
    case CHR_ENOTNULL:
        sql__fail(q, sql_sqlstate_of(CHR_ENOTNULL), SQL_NO_POS,
                  "null value violates a NOT NULL column of table \"%s\"", table->name);
        break;
    case CHR_ENOTFOUND:
        sql__fail(q, sql_sqlstate_of(CHR_ENOTFOUND), SQL_NO_POS, "table \"%s\" does not exist",
                  table->name);
        break;
    case CHR_EEXIST:
        sql__fail(q, sql_sqlstate_of(CHR_EEXIST), SQL_NO_POS, "table \"%s\" already exists",
                  table->name);
        break;
    default:
        sql__fail_err(q, applied->op_err, NULL);
    }
    q->err = applied->op_err;
    return false;
}
