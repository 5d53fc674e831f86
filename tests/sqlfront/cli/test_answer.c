/* Parts of answers put together and printed; errors read from both of their forms. */
#include "../../base/check.h"

#include "sqlfront/cli/answer.h"
#include "sqlfront/cli/shell.h"
#include "sqlfront/result/json_join.h"
#include "sqlfront/result/json_read.h"

struct printed {
    char *text;
    size_t size;
    struct cli_answer answer;
};

/* parts: NULL-terminated. */
static struct printed print_parts(enum sql_format format, bool expanded, const char *const *parts)
{
    struct printed p = {0};
    FILE *out = open_memstream(&p.text, &p.size);
    struct cli_print print = {.out = out, .format = format, .expanded = expanded};
    cli_answer_begin(&p.answer, &print);
    for (size_t i = 0; parts[i]; i++)
        cli_answer_part(&p.answer, chr_slice_cstr(parts[i]), i == 0, !parts[i + 1], false);
    cli_answer_end(&p.answer);
    fclose(out);
    return p;
}

#define PARTS(...) ((const char *const[]){__VA_ARGS__, NULL})

static void expect(enum sql_format format, bool expanded, const char *const *parts,
                   const char *text)
{
    struct printed p = print_parts(format, expanded, parts);
    assert_string_equal(p.text, text);
    assert_false(p.answer.failed);
    free(p.text);
}

static void forms_that_follow_each_other(void **state)
{
    (void)state;
    expect(SQL_FORMAT_TABLE, false, PARTS("+---+\n| a |\n", "| 1 |\n+---+\n"),
           "+---+\n| a |\n| 1 |\n+---+\n");
    expect(SQL_FORMAT_CSV, false, PARTS("a,b\n1,2\n", "3,4\n"), "a,b\n1,2\n3,4\n");
    expect(SQL_FORMAT_NDJSON, false, PARTS("{\"a\":1}\n", "{\"a\":2}\n"), "{\"a\":1}\n{\"a\":2}\n");
    /* The last line is ended. */
    expect(SQL_FORMAT_TABLE, false, PARTS("INSERT 2"), "INSERT 2\n");
    expect(SQL_FORMAT_TABLE, false, PARTS(""), "");
}

static void json_is_one_document(void **state)
{
    (void)state;
    expect(SQL_FORMAT_JSON, false, PARTS("{\"columns\":[],\"rows\":[[1]],\"row_count\":1}"),
           "{\"columns\":[],\"rows\":[[1]],\"row_count\":1}\n");
    expect(SQL_FORMAT_JSON, false,
           PARTS("{\"columns\":[{\"name\":\"a]\\\"\"}],\"rows\":[[\"x,]}\"],[2]],\"part\":1,"
                 "\"last\":false}",
                 "{\"columns\":[{\"name\":\"a]\\\"\"}],\"rows\":[],\"part\":2,\"last\":false}",
                 "{\"columns\":[{\"name\":\"a]\\\"\"}],\"rows\":[[3]],\"row_count\":3,"
                 "\"elapsed_us\":7,\"part\":3,\"last\":true}"),
           "{\"columns\":[{\"name\":\"a]\\\"\"}],\"rows\":[[\"x,]}\"],[2],[3]],\"row_count\":3,"
           "\"elapsed_us\":7}\n");
}

static void json_that_breaks_off(void **state)
{
    (void)state;
    struct printed p = print_parts(
        SQL_FORMAT_JSON, false,
        PARTS(
            "{\"columns\":[],\"rows\":[[1]],\"part\":1,\"last\":false}",
            "{\"error\":{\"code\":\"57014\",\"message\":\"cancelled\"},\"part\":2,\"last\":true}"));
    assert_string_equal(p.text, "{\"columns\":[],\"rows\":[[1]],\"error\":{\"code\":\"57014\","
                                "\"message\":\"cancelled\"}}\n");
    assert_true(p.answer.failed);
    assert_string_equal(p.answer.error.sqlstate, "57014");
    free(p.text);
}

static void expanded(void **state)
{
    (void)state;
    expect(SQL_FORMAT_TABLE, true,
           PARTS("{\"columns\":[{\"name\":\"id\",\"type\":\"INT\"},{\"name\":\"größe\",\"type\":"
                 "\"STRING\"}],\"rows\":[[1,\"a\\nb\\u001b\"],[2,null]],\"part\":1,\"last\":false}",
                 "{\"columns\":[{\"name\":\"id\",\"type\":\"INT\"},{\"name\":\"größe\",\"type\":"
                 "\"STRING\"}],\"rows\":[[3,\"\\u00e9\\ud83d\\ude00\"]],\"row_count\":3,"
                 "\"part\":2,\"last\":true}"),
           "-[ RECORD 1 ]----\n"
           "id    | 1\n"
           "größe | a\\nb\\x1b\n"
           "-[ RECORD 2 ]----\n"
           "id    | 2\n"
           "größe | \n"
           "-[ RECORD 3 ]----\n"
           "id    | 3\n"
           "größe | é😀\n"
           "(3 rows)\n");
    expect(SQL_FORMAT_TABLE, true, PARTS("{\"command\":\"INSERT\",\"row_count\":2}"), "INSERT 2\n");
}

static void errors_in_json(void **state)
{
    (void)state;
    const char *text =
        "{\"error\":{\"code\":\"42P01\",\"message\":\"table \\\"x\\\" does not exist\","
        "\"position\":15,\"hint\":\"look\",\"detail\":null}}";
    struct printed p = print_parts(SQL_FORMAT_JSON, false, PARTS(text));
    assert_string_equal(p.text, "");
    assert_true(p.answer.failed);
    assert_string_equal(p.answer.error.sqlstate, "42P01");
    assert_string_equal(p.answer.error.message, "table \"x\" does not exist");
    assert_string_equal(p.answer.error.hint, "look");
    assert_string_equal(p.answer.error.detail, "");
    assert_int_equal(p.answer.error.position, 15);
    free(p.text);
    /* A row that looks like one is none. */
    expect(SQL_FORMAT_CSV, false, PARTS("error\nERROR 42P01: x\n"), "error\nERROR 42P01: x\n");
}

static void errors_in_text(void **state)
{
    (void)state;
    struct sql_error error;
    assert_true(
        cli_error_read(CHR_LIT("ERROR 23505: duplicate\nDETAIL: (a)=(1)\nHINT: no\n"), &error));
    assert_string_equal(error.sqlstate, "23505");
    assert_string_equal(error.message, "duplicate");
    assert_string_equal(error.detail, "(a)=(1)");
    assert_string_equal(error.hint, "no");
    assert_int_equal(error.position, 0);
    assert_true(
        cli_error_read(CHR_LIT("ERROR 42601: a (at character 1) (at character 15)\n"), &error));
    assert_string_equal(error.message, "a (at character 1)");
    assert_int_equal(error.position, 15);
    assert_true(cli_error_read(CHR_LIT("ERROR 42601: a (at character x)"), &error));
    assert_string_equal(error.message, "a (at character x)");
    assert_false(cli_error_read(CHR_LIT("ERROR"), &error));
    assert_false(cli_error_read(CHR_LIT("ERROR 235"), &error));
    assert_false(cli_error_read(CHR_LIT(""), &error));
    assert_false(cli_error_read(CHR_LIT("{\"error\":"), &error));
}

static void expect_error(uint32_t position, const char *message, const char *context,
                         const char *text)
{
    struct sql_error error = {.sqlstate = "42601", .position = position};
    snprintf(error.message, sizeof error.message, "%s", message);
    char *got = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&got, &size);
    cli_error_print(out, &error, chr_slice_cstr(context));
    fclose(out);
    assert_string_equal(got, text);
    free(got);
}

static void errors_point_at_their_place(void **state)
{
    (void)state;
    expect_error(8, "no", "", "ERROR 42601: no (at character 8)\n");
    expect_error(0, "no", "", "ERROR 42601: no\n");
    expect_error(8, "no", "SELECT x", "ERROR 42601: no\nLINE 1: SELECT x\n               ^\n");
    expect_error(10, "no", "SELECT\n  x\nFROM y", "ERROR 42601: no\nLINE 2:   x\n          ^\n");
    /* Characters, not bytes; a tab is shown as two. */
    expect_error(4, "no", "é\té!", "ERROR 42601: no\nLINE 1: é\\té!\n            ^\n");
    expect_error(99, "no", "x", "ERROR 42601: no\nLINE 1: x\n         ^\n");
    /* An error is one line, whatever it quotes. */
    expect_error(0, "a\nb\033[2J\xc2\x9b\xc3\xa9", "x", "ERROR 42601: a\\nb\\x1b[2J\\x9bé\n");
}

static void blank_texts(void **state)
{
    (void)state;
    static const char *const blank[] = {
        "", " \n\t", ";;", "-- x", "--\n", "/* a /* b */ c */ ;", "/* open", "-- x\n ; -- y"};
    static const char *const not_blank[] = {"x", "-- x\ny", "/* a */ b", "-", "/", "'--'"};
    for (size_t i = 0; i < CHR_COUNT_OF(blank); i++)
        if (!shell_is_blank(chr_slice_cstr(blank[i])))
            fail_msg("not blank: %s", blank[i]);
    for (size_t i = 0; i < CHR_COUNT_OF(not_blank); i++)
        if (shell_is_blank(chr_slice_cstr(not_blank[i])))
            fail_msg("blank: %s", not_blank[i]);
}

/* Cut anywhere, changed anywhere: nothing is read past the end (the sanitizers look). */
static void broken_documents(void **state)
{
    (void)state;
    static const char whole[] =
        "{\"columns\":[{\"name\":\"a\\u00e9\\ud83d\\ude00\",\"type\":\"INT\"}],\"rows\":[[1,"
        "\"x\\\"]"
        "\"],[null]],\"error\":{\"code\":\"57014\",\"message\":\"\\n\",\"position\":3}}";
    struct chr_random random = test_random(7);
    for (size_t len = 0; len < sizeof whole; len++) {
        for (int round = 0; round < 8; round++) {
            char *copy = malloc(len ? len : 1);
            memcpy(copy, whole, len);
            if (len && round)
                copy[chr_random_u64(&random) % len] = "{}[]\",:\\u0"[chr_random_u64(&random) % 10];
            chr_slice text = chr_slice_of(copy, len);
            struct chr_buf out;
            chr_buf_init(&out, 65536);
            struct json_join join = {0};
            json_join_part(&join, text, true, false, &out);
            json_join_part(&join, text, false, true, &out);
            struct sql_error error;
            (void)cli_error_read(text, &error);
            char *printed = NULL;
            size_t size = 0;
            FILE *file = open_memstream(&printed, &size);
            struct cli_print print = {.out = file, .format = SQL_FORMAT_JSON, .expanded = true};
            struct cli_answer answer;
            cli_answer_begin(&answer, &print);
            cli_answer_part(&answer, text, true, true, true);
            cli_answer_end(&answer);
            fclose(file);
            free(printed);
            chr_buf_free(&out);
            free(copy);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forms_that_follow_each_other),
        cmocka_unit_test(json_is_one_document),
        cmocka_unit_test(json_that_breaks_off),
        cmocka_unit_test(expanded),
        cmocka_unit_test(errors_in_json),
        cmocka_unit_test(errors_in_text),
        cmocka_unit_test(errors_point_at_their_place),
        cmocka_unit_test(blank_texts),
        cmocka_unit_test(broken_documents),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
