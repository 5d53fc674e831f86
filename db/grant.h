/* db/grant.h: who may do what with a table: roles, and what GRANT adds to them.
 *
 * A user has one role. A role has default privileges on every table; a table's definition carries
 * grants that change that:
 *
 *   to a user     adds to what its role may do
 *   to a role     replaces the role's default on this table (so REVOKE … FROM ROLE readonly works)
 *   to PUBLIC     adds for everybody, whatever the role
 *
 * An admin may do everything, whatever the grants say. */
#ifndef CHR_DB_GRANT_H
#define CHR_DB_GRANT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/slice.h"

/* From the most to the least. Stored numbers. */
enum db_role {
    DB_ROLE_ADMIN = 0,     /* everything, definitions of tables and grants among it */
    DB_ROLE_READWRITE = 1, /* publish, subscribe, read and change the rows of all tables */
    DB_ROLE_READONLY = 2,  /* subscribe, read all tables */
    DB_ROLE_DEVICE = 3,    /* publish and subscribe by ACL; no SQL unless granted */
};
#define DB_ROLES_END 4
/* "readwrite"; static. */
const char *db_role_name(enum db_role role);
/* False: no such role. */
bool db_role_parse(chr_slice name, enum db_role *role);

/* Stored numbers; a set of them is a uint8_t. */
#define DB_PRIVILEGE_SELECT 0x1
#define DB_PRIVILEGE_INSERT 0x2
#define DB_PRIVILEGE_UPDATE 0x4
#define DB_PRIVILEGE_DELETE 0x8
#define DB_PRIVILEGES_ALL   0xf
/* "SELECT" for one bit; static. */
const char *db_privilege_name(uint8_t privilege);

enum db_grantee_kind { DB_GRANTEE_USER = 0, DB_GRANTEE_ROLE = 1, DB_GRANTEE_PUBLIC = 2 };

#define DB_GRANTEE_BYTES_MAX 127
#define DB_GRANTS_MAX        1024 /* of one table */

struct db_grant {
    enum db_grantee_kind kind;
    uint8_t privileges;                  /* set; 0 only for a role: its default is taken away */
    char name[DB_GRANTEE_BYTES_MAX + 1]; /* of the user or the role; "": PUBLIC */
};

struct db_table_def;

/* The grants of a table after one more GRANT or REVOKE, in `grants` ([*count], room for one more).
 * False: DB_GRANTS_MAX. */
bool db_grants_change(struct db_grant *grants, uint32_t *count, const struct db_grant *change,
                      bool revoke);

/* What a user with this role may do with a table. user: empty for anonymous ones, who have no
 * grants of their own. */
uint8_t db_table_privileges(const struct db_table_def *table, chr_slice user, enum db_role role);

#endif
