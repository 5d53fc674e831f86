/* sqlfront/grant.c: GRANT, REVOKE and SHOW GRANTS. What they mean: db/grant.h. */
#include <strings.h>

#include "base/buf.h"
#include "sqlfront/internal.h"
#include "sqlfront/relation.h"

static bool read_privileges(struct sql_query *q, const struct sql_stmt *stmt, uint8_t *out)
{
    static const uint8_t all[] = {DB_PRIVILEGE_SELECT, DB_PRIVILEGE_INSERT, DB_PRIVILEGE_UPDATE,
                                  DB_PRIVILEGE_DELETE};
    *out = stmt->privileges.count ? 0 : DB_PRIVILEGES_ALL;
    for (const struct sql_name *n = stmt->privileges.first; n; n = n->next) {
        size_t i = 0;
        for (; i < CHR_COUNT_OF(all); i++) {
            const char *name = db_privilege_name(all[i]);
            if (strlen(name) == n->text.len &&
                strncasecmp(name, (const char *)n->text.ptr, n->text.len) == 0)
                break;
        }
        if (i == CHR_COUNT_OF(all)) {
            sql__fail(q, "42601", n->pos, "unrecognized privilege \"%.*s\"",
                      CHR_SLICE_ARGS(n->text));
            sql__hint(q, "Privileges are SELECT, INSERT, UPDATE, DELETE and ALL.");
            return false;
        }
        *out |= all[i];
    }
    return true;
}

/* PUBLIC, a role's name without USER in front of it, else a user. */
static bool read_grantee(struct sql_query *q, const struct sql_grantee *g, struct db_grant *out)
{
    enum db_role role;
    bool plain = g->word == SQL_GRANTEE_PLAIN;
    if (plain && chr_slice_eq(g->name, CHR_LIT("public"))) {
        out->kind = DB_GRANTEE_PUBLIC;
        out->name[0] = 0;
        return true;
    }
    if (g->name.len == 0 || g->name.len > DB_GRANTEE_BYTES_MAX)
        return sql__fail(q, "42602", g->pos, "a user's name has 1 to %d bytes",
                         DB_GRANTEE_BYTES_MAX);
    bool is_role = g->word != SQL_GRANTEE_USER && db_role_parse(g->name, &role);
    if (g->word == SQL_GRANTEE_ROLE && !is_role) {
        sql__fail(q, "42704", g->pos, "role \"%.*s\" does not exist", CHR_SLICE_ARGS(g->name));
        sql__hint(q, "Roles are admin, readwrite, readonly and device.");
        return false;
    }
    if (is_role && role == DB_ROLE_ADMIN)
        return sql__fail(q, "0LP01", g->pos, "the role admin may do everything, always");
    out->kind = is_role ? DB_GRANTEE_ROLE : DB_GRANTEE_USER;
    memcpy(out->name, g->name.ptr, g->name.len);
    out->name[g->name.len] = 0;
    return true;
}

static bool add_changes(struct sql_query *q, const struct sql_stmt *stmt, const db_catalog *catalog,
                        struct db_entry *entry)
{
    struct db_grant change = {0};
    if (!read_privileges(q, stmt, &change.privileges))
        return false;
    for (const struct sql_name *n = stmt->tables.first; n; n = n->next) {
        const struct db_table_def *table = sql__find_table(q, catalog, n->text, n->pos);
        if (!table)
            return false;
        if (sql__is_relation(table))
            return sql__fail(q, "42809", n->pos,
                             "\"%s\" shows what the node is doing: roles say who may read it, not "
                             "grants",
                             table->name);
        if (table->system && (change.privileges & ~DB_PRIVILEGE_SELECT) && !stmt->revoke)
            return sql__fail(q, "42501", n->pos,
                             "table \"%s\" is kept by the node itself: it can be read only",
                             table->name);
        for (const struct sql_grantee *g = stmt->grantees; g; g = g->next) {
            if (!read_grantee(q, g, &change))
                return false;
            db_entry_add_grant(entry, table->id, &change, stmt->revoke);
        }
    }
    return true;
}

bool sql__run_grant(struct sql_query *q, const struct sql_stmt *stmt, struct sql_done *done)
{
    if (!sql__may_define(q, stmt->revoke ? "REVOKE" : "GRANT", stmt->pos) ||
        !sql__may_write(q, NULL, SQL_NO_POS))
        return false;
    const db_catalog *catalog = db_catalog_acquire(q->session->db);
    struct db_entry entry;
    struct sql_applied applied = {0};
    sql__write_begin(q, &entry);
    const struct db_table_def *first = db_catalog_find(catalog, stmt->tables.first->text);
    bool ok = add_changes(q, stmt, catalog, &entry) && sql__write_propose(q, &entry, &applied);
    if (ok && applied.op_err == CHR_EFULL)
        ok = sql__fail(q, "54000", SQL_NO_POS, "a table has at most %d grants", DB_GRANTS_MAX);
    ok = ok && sql__write_check(q, &applied, first);
    if (ok) {
        done->duplicate = applied.err == CHR_EEXIST;
        done->apply_index = applied.index;
    }
    db_entry_free(&entry);
    db_catalog_release(catalog);
    return ok;
}

/* ---- SHOW GRANTS --------------------------------------------------------------------------------
 */

static char *privileges_text(struct sql_query *q, uint8_t privileges)
{
    struct chr_buf buf;
    chr_buf_init(&buf, 256);
    for (uint8_t bit = 1; bit <= DB_PRIVILEGE_DELETE; bit = (uint8_t)(bit << 1))
        if (privileges & bit)
            chr_buf_addf(&buf, "%s%s", buf.len ? ", " : "", db_privilege_name(bit));
    char *text = chr_arena_cstr(&q->arena, buf.len ? chr_buf_slice(&buf) : CHR_LIT("none"));
    chr_buf_free(&buf);
    return text;
}

/* Admins see all of them, others those that are for them. */
static bool concerns(const struct sql_session *s, const struct db_grant *g)
{
    if (s->role == DB_ROLE_ADMIN || g->kind == DB_GRANTEE_PUBLIC)
        return true;
    return strcmp(g->name, g->kind == DB_GRANTEE_USER ? s->user : db_role_name(s->role)) == 0;
}

bool sql__run_show_grants(struct sql_query *q, const struct sql_stmt *stmt, uint64_t *rows)
{
    (void)stmt;
    static const char *const kinds[] = {"user", "role", "public"};
    const struct sql_column columns[] = {{CHR_LIT("table_name"), DB_STRING},
                                         {CHR_LIT("grantee_kind"), DB_STRING},
                                         {CHR_LIT("grantee"), DB_STRING},
                                         {CHR_LIT("privileges"), DB_STRING}};
    const db_catalog *catalog = db_catalog_acquire(q->session->db);
    size_t count = 0, tables = db_catalog_tables_count(catalog);
    for (size_t i = 0; i < tables; i++)
        count += db_catalog_table_at(catalog, i)->grants_count;
    const char **cells = SQL_ARRAY(q, const char *, 4 * count + 1);
    uint32_t n = 0;
    bool ok = cells != NULL;
    for (size_t i = 0; ok && i < tables; i++) {
        const struct db_table_def *t = db_catalog_table_at(catalog, i);
        for (uint32_t k = 0; ok && k < t->grants_count; k++) {
            const struct db_grant *g = &t->grants[k];
            if (!concerns(q->session, g))
                continue;
            const char **row = cells + 4 * (size_t)n++;
            row[0] = t->name;
            row[1] = kinds[g->kind];
            row[2] = g->kind == DB_GRANTEE_PUBLIC ? NULL : g->name;
            row[3] = privileges_text(q, g->privileges);
            ok = row[3] || sql__fail_memory(q);
        }
    }
    *rows = n;
    ok = ok && sql__send_texts(q, columns, 4, cells, n);
    db_catalog_release(catalog);
    return ok;
}
