/* tests/db/test_grant.c: what GRANT and REVOKE make of a table's grants, and what follows. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
/* cmocka wants those before it */
#include <cmocka.h>

#include "db/catalog.h"
#include "db/op_decode.h"

struct kit {
    struct db_grant grants[DB_GRANTS_MAX];
    struct db_table_def table;
};

static bool change(struct kit *k, enum db_grantee_kind kind, const char *name, uint8_t privileges,
                   bool revoke)
{
    struct db_grant g = {.kind = kind, .privileges = privileges};
    strcpy(g.name, name);
    k->table.grants = k->grants;
    return db_grants_change(k->grants, &k->table.grants_count, &g, revoke);
}

static uint8_t may(const struct kit *k, const char *user, enum db_role role)
{
    return db_table_privileges(&k->table, chr_slice_cstr(user), role);
}

static void roles_have_defaults(void **state)
{
    static struct kit k;
    assert_int_equal(may(&k, "u", DB_ROLE_ADMIN), DB_PRIVILEGES_ALL);
    assert_int_equal(may(&k, "u", DB_ROLE_READWRITE), DB_PRIVILEGES_ALL);
    assert_int_equal(may(&k, "u", DB_ROLE_READONLY), DB_PRIVILEGE_SELECT);
    assert_int_equal(may(&k, "u", DB_ROLE_DEVICE), 0);
}

static void grants_add_and_roles_are_replaced(void **state)
{
    static struct kit k;
    assert_true(change(&k, DB_GRANTEE_USER, "u", DB_PRIVILEGE_INSERT, false));
    assert_int_equal(may(&k, "u", DB_ROLE_DEVICE), DB_PRIVILEGE_INSERT);
    assert_int_equal(may(&k, "u", DB_ROLE_READONLY), DB_PRIVILEGE_INSERT | DB_PRIVILEGE_SELECT);
    assert_int_equal(may(&k, "v", DB_ROLE_DEVICE), 0);
    assert_int_equal(may(&k, "", DB_ROLE_DEVICE), 0);
    assert_true(change(&k, DB_GRANTEE_PUBLIC, "", DB_PRIVILEGE_DELETE, false));
    assert_int_equal(may(&k, "", DB_ROLE_DEVICE), DB_PRIVILEGE_DELETE);
    assert_true(change(&k, DB_GRANTEE_ROLE, "readonly", DB_PRIVILEGE_SELECT, true));
    assert_int_equal(may(&k, "v", DB_ROLE_READONLY), DB_PRIVILEGE_DELETE);
    assert_int_equal(k.table.grants_count, 3);
    /* Sorted by kind and name, and back to nothing. */
    assert_int_equal(k.grants[0].kind, DB_GRANTEE_USER);
    assert_int_equal(k.grants[2].kind, DB_GRANTEE_PUBLIC);
    assert_true(change(&k, DB_GRANTEE_ROLE, "readonly", DB_PRIVILEGE_SELECT, false));
    assert_true(change(&k, DB_GRANTEE_USER, "u", DB_PRIVILEGES_ALL, true));
    assert_true(change(&k, DB_GRANTEE_PUBLIC, "", DB_PRIVILEGES_ALL, true));
    assert_int_equal(k.table.grants_count, 0);
    assert_true(change(&k, DB_GRANTEE_USER, "never", DB_PRIVILEGES_ALL, true));
    assert_int_equal(k.table.grants_count, 0);
}

static void there_is_a_most(void **state)
{
    static struct kit k;
    char name[16];
    for (int i = 0; i < DB_GRANTS_MAX; i++) {
        snprintf(name, sizeof name, "u%d", i);
        assert_true(change(&k, DB_GRANTEE_USER, name, DB_PRIVILEGE_SELECT, false));
    }
    assert_false(change(&k, DB_GRANTEE_USER, "one more", DB_PRIVILEGE_SELECT, false));
    assert_true(change(&k, DB_GRANTEE_USER, "u7", DB_PRIVILEGE_INSERT, false));
    assert_int_equal(k.table.grants_count, DB_GRANTS_MAX);
}

static void definitions_keep_them(void **state)
{
    static struct kit k;
    struct db_column_def column = {.type = DB_INT, .name = "x"};
    k.table = (struct db_table_def){
        .id = 20, .schema_version = 1, .name = "t", .columns = &column, .columns_count = 1};
    struct chr_errmsg msg = {{0}};
    assert_int_equal(db_table_def_complete(&k.table, &msg), CHR_OK);
    assert_true(change(&k, DB_GRANTEE_USER, "u", DB_PRIVILEGE_INSERT, false));
    struct chr_buf bytes;
    chr_buf_init(&bytes, 65536);
    assert_int_equal(db_table_def_encode(&k.table, &bytes), CHR_OK);
    struct db_table_def *back;
    assert_int_equal(db_table_def_decode(chr_buf_slice(&bytes), &back, &msg), CHR_OK);
    assert_int_equal(back->grants_count, 1);
    assert_string_equal(back->grants[0].name, "u");
    assert_int_equal(back->grants[0].privileges, DB_PRIVILEGE_INSERT);
    db_table_def_free(back);
    chr_buf_free(&bytes);
}

static void operations_are_checked(void **state)
{
    struct db_grant g;
    bool revoke;
    const uint8_t good[] = {0, 3, 1, 0, 1, 0, 0, 0, 'u', 0, 0, 0, 0, 0, 0, 0};
    assert_int_equal(db__grant_decode(chr_slice_of(good, sizeof good), &g, &revoke), CHR_OK);
    assert_true(revoke);
    assert_string_equal(g.name, "u");
    static const uint8_t bad_values[4] = {3, 16, 2, 1};
    for (size_t i = 0; i < 4; i++) {
        uint8_t bad[sizeof good];
        memcpy(bad, good, sizeof good);
        bad[i] = bad_values[i];
        assert_int_equal(db__grant_decode(chr_slice_of(bad, sizeof bad), &g, &revoke),
                         CHR_ECORRUPT);
    }
    for (size_t len = 0; len < sizeof good; len++)
        assert_int_equal(db__grant_decode(chr_slice_of(good, len), &g, &revoke), CHR_ECORRUPT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(roles_have_defaults),
        cmocka_unit_test(grants_add_and_roles_are_replaced),
        cmocka_unit_test(there_is_a_most),
        cmocka_unit_test(definitions_keep_them),
        cmocka_unit_test(operations_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
