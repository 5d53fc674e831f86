#include "db/grant.h"

#include <string.h>

#include "db/catalog.h"

static const char *const role_names[DB_ROLES_END] = {"admin", "readwrite", "readonly", "device"};

const char *db_role_name(enum db_role role)
{
    return (unsigned)role < DB_ROLES_END ? role_names[role] : "unknown";
}

bool db_role_parse(chr_slice name, enum db_role *role)
{
    for (unsigned i = 0; i < DB_ROLES_END; i++)
        if (chr_slice_eq(name, chr_slice_cstr(role_names[i]))) {
            *role = (enum db_role)i;
            return true;
        }
    return false;
}

const char *db_privilege_name(uint8_t privilege)
{
    switch (privilege) {
    case DB_PRIVILEGE_SELECT:
        return "SELECT";
    case DB_PRIVILEGE_INSERT:
        return "INSERT";
    case DB_PRIVILEGE_UPDATE:
        return "UPDATE";
    case DB_PRIVILEGE_DELETE:
        return "DELETE";
    default:
        return "unknown";
    }
}

static uint8_t role_default(enum db_role role)
{
    switch (role) {
    case DB_ROLE_ADMIN:
    case DB_ROLE_READWRITE:
        return DB_PRIVILEGES_ALL;
    case DB_ROLE_READONLY:
        return DB_PRIVILEGE_SELECT;
    case DB_ROLE_DEVICE:
        break;
    }
    return 0;
}

/* What a grantee has when no grant names it. */
static uint8_t unnamed(const struct db_grant *change)
{
    enum db_role role;
    return change->kind == DB_GRANTEE_ROLE && db_role_parse(chr_slice_cstr(change->name), &role)
               ? role_default(role)
               : 0;
}

bool db_grants_change(struct db_grant *grants, uint32_t *count, const struct db_grant *change,
                      bool revoke)
{
    uint32_t at = 0;
    int order = 1;
    for (; at < *count; at++) {
        order = grants[at].kind != change->kind ? (int)grants[at].kind - (int)change->kind
                                                : strcmp(grants[at].name, change->name);
        if (order >= 0)
            break;
    }
    bool known = at < *count && order == 0;
    uint8_t before = known ? grants[at].privileges : unnamed(change);
    uint8_t after = (uint8_t)(revoke ? before & ~change->privileges : before | change->privileges);
    if (after == unnamed(change)) { /* as if nothing had ever been said */
        if (known) {
            memmove(grants + at, grants + at + 1, (*count - at - 1) * sizeof *grants);
            (*count)--;
        }
        return true;
    }
    if (!known) {
        if (*count == DB_GRANTS_MAX)
            return false;
        memmove(grants + at + 1, grants + at, (*count - at) * sizeof *grants);
        grants[at] = *change;
        (*count)++;
    }
    grants[at].privileges = after;
    return true;
}

uint8_t db_table_privileges(const struct db_table_def *table, chr_slice user, enum db_role role)
{
    uint8_t of_role = role_default(role), more = 0;
    if (role == DB_ROLE_ADMIN)
        return of_role;
    for (uint32_t i = 0; i < table->grants_count; i++) {
        const struct db_grant *g = &table->grants[i];
        switch (g->kind) {
        case DB_GRANTEE_USER:
            if (user.len && chr_slice_eq(chr_slice_cstr(g->name), user))
                more |= g->privileges;
            break;
        case DB_GRANTEE_ROLE:
            if (strcmp(g->name, db_role_name(role)) == 0)
                of_role = g->privileges;
            break;
        case DB_GRANTEE_PUBLIC:
            more |= g->privileges;
            break;
        }
    }
    return of_role | more;
}
