/* tests/sqlfront/test_sql_text.c: runs the files of sql/: statements and what they answer.
 *
 * Every file runs twice on a database of its own: with its rows hot, and with a checkpoint after
 * every write, so that reads come from chunks and tail blocks. CHR_REWRITE=1 writes what the first
 * pass answers into the files (and the second for `sealed`). CHR_SQL_FILE=name runs one file.
 *
 *   # comment, kept
 *   sql SELECT 1            rows with " | " between columns; "INSERT 2"; "ERROR 42P01 at 15: …"
 *   columns SELECT 1        the same under a line of names and types
 *   answer SELECT 1         the bytes of the answer, JSON unless FORMAT says otherwise
 *   hot SELECT …            first pass only;   sealed SELECT …   second pass only
 *   ----
 *   expected lines, up to an empty one
 *
 *   set clock +5 s | part_bytes N | no_header on | result_rows N | memory N | read_only on |
 * last_only on set propose CHR_ENOSPC  what the next write meets set checkpoint          (second
 * pass) leaves the hot rows now */
#include <dirent.h>

#include "base/num.h"
#include "base/timestamp.h"
#include "kit.h"
#include "sqlfront/result/format.h"

struct runner {
    struct kit kit;
    struct chr_buf out;
    bool names; /* `columns` */
    bool had_rows, wrote;
    struct sql_writer_options writer;
    enum db_type types[1100];
};

/* -- The sink of `sql` and `columns`
 * -------------------------------------------------------------*/

static chr_err on_begin(void *ctx, const struct sql_column *columns, uint32_t count)
{
    struct runner *r = ctx;
    r->had_rows = true;
    for (uint32_t i = 0; r->names && i < count; i++)
        chr_buf_addf(&r->out, "%s%.*s:%s", i ? " | " : "", CHR_SLICE_ARGS(columns[i].name),
                     db_type_name(columns[i].type));
    if (r->names)
        chr_buf_add_u8(&r->out, '\n');
    return CHR_OK;
}

static chr_err on_rows(void *ctx, const struct db_vector *const *vectors, uint32_t columns,
                       const uint16_t *sel, uint32_t count)
{
    struct runner *r = ctx;
    assert_true(count > 0 && count <= DB_VECTOR_ROWS);
    for (uint32_t j = 0; j < count; j++) {
        uint32_t row = sel ? sel[j] : j;
        for (uint32_t c = 0; c < columns; c++) {
            const struct db_vector *v = vectors[c];
            if (c)
                chr_buf_add_cstr(&r->out, " | ");
            size_t from = r->out.len;
            if (!db_vector_valid(v, row))
                chr_buf_add_cstr(&r->out, "NULL");
            else
                sql__value_text(&r->out, v, row);
            if (r->out.len == from)
                chr_buf_add_cstr(&r->out, "(empty)");
        }
        chr_buf_add_u8(&r->out, '\n');
    }
    return CHR_OK;
}

static chr_err on_end(void *ctx, const struct sql_done *done)
{
    struct runner *r = ctx;
    if (!r->had_rows) {
        sql__command_tag(done, &r->out);
        chr_buf_add_u8(&r->out, '\n');
    } else if (done->row_count == 0) {
        chr_buf_add_cstr(&r->out, "(no rows)\n");
    }
    r->wrote |= !r->had_rows;
    r->had_rows = false;
    return CHR_OK;
}

static void on_error(void *ctx, const struct sql_error *error)
{
    struct runner *r = ctx;
    chr_buf_addf(&r->out, "ERROR %s", error->sqlstate);
    if (error->position)
        chr_buf_addf(&r->out, " at %u", error->position);
    chr_buf_addf(&r->out, ": %s\n", error->message);
    if (error->detail[0])
        chr_buf_addf(&r->out, "DETAIL: %s\n", error->detail);
    if (error->hint[0])
        chr_buf_addf(&r->out, "HINT: %s\n", error->hint);
    r->had_rows = false;
}

/* -- `answer`
 * ------------------------------------------------------------------------------------*/

static chr_err on_part(void *ctx, const struct sql_part *part)
{
    struct runner *r = ctx;
    if (part->split)
        chr_buf_addf(&r->out, "[part %u%s]\n", part->part, part->last ? ", last" : "");
    for (size_t i = 0; i < part->bytes.len; i++) { /* CRLF shows as it is */
        if (part->bytes.ptr[i] == '\r')
            chr_buf_add_cstr(&r->out, "\\r");
        else
            chr_buf_add_u8(&r->out, part->bytes.ptr[i]);
    }
    if (part->bytes.len && part->bytes.ptr[part->bytes.len - 1] != '\n')
        chr_buf_add_u8(&r->out, '\n');
    if (part->format == SQL_FORMAT_JSON || part->error)
        assert_true(part->bytes.len <= r->writer.part_bytes || part->error);
    return CHR_OK;
}

static void run_statement(struct runner *r, const char *how, chr_slice text)
{
    chr_buf_reset(&r->out);
    r->names = strcmp(how, "columns") == 0;
    r->had_rows = false;
    r->wrote = false;
    if (strcmp(how, "answer") == 0) {
        sql_writer *w = sql_writer_new(&r->writer, on_part, r);
        assert_non_null(w);
        (void)sql_execute(r->kit.session, text, sql_writer_sink(w));
        sql_writer_free(w);
        r->wrote = true;
        return;
    }
    struct sql_sink sink = {
        .ctx = r, .begin = on_begin, .rows = on_rows, .end = on_end, .error = on_error};
    (void)sql_execute(r->kit.session, text, &sink);
}

static void set(struct runner *r, const char *line, bool sealed)
{
    char name[32] = "", value[64] = "";
    if (sscanf(line, "%31s %63[^\n]", name, value) < 1)
        fail_msg("set what? %s", line);
    bool on = strcmp(value, "on") == 0;
    uint64_t number = strtoull(value, NULL, 10);
    bool session = true;
    if (strcmp(name, "clock") == 0) {
        r->kit.wall_us += strtoll(value, NULL, 10) * 1000000;
        session = false;
    } else if (strcmp(name, "part_bytes") == 0) {
        r->writer.part_bytes = number;
    } else if (strcmp(name, "no_header") == 0) {
        r->writer.no_header = on;
    } else if (strcmp(name, "last_only") == 0) {
        r->writer.last_only = on;
    } else if (strcmp(name, "result_rows") == 0) {
        r->kit.limits.result_rows = number;
    } else if (strcmp(name, "result_bytes") == 0) {
        r->kit.limits.result_bytes = number;
    } else if (strcmp(name, "memory") == 0) {
        r->kit.limits.memory_bytes = number;
    } else if (strcmp(name, "statement_bytes") == 0) {
        r->kit.limits.statement_bytes = number;
    } else if (strcmp(name, "read_only") == 0) {
        sql_session_set_read_only(r->kit.session, on);
        session = false;
    } else if (strcmp(name, "propose") == 0) {
        r->kit.propose_err = (chr_err)strtol(value, NULL, 10);
        session = false;
    } else if (strcmp(name, "checkpoint") == 0) {
        if (sealed)
            kit_checkpoint(&r->kit);
        session = false;
    } else {
        fail_msg("set what? %s", line);
    }
    if (session) {
        sql_session_free(r->kit.session);
        r->kit.session = sql_session_new(r->kit.db, &r->kit.host, &r->kit.limits);
    }
}

/* -- Files
 * ---------------------------------------------------------------------------------------*/

static char *read_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    long size = ftell(f);
    rewind(f);
    char *text = malloc((size_t)size + 1);
    assert_int_equal(fread(text, 1, (size_t)size, f), size);
    text[size] = '\0';
    fclose(f);
    return text;
}

static unsigned cases, failures;

static void run_file(const char *path, bool sealed)
{
    bool rewrite = getenv("CHR_REWRITE") != NULL;
    char *text = read_file(path);
    struct runner *r = calloc(1, sizeof *r);
    kit_open(&r->kit, sealed ? 2048 : 0); /* small chunks: a few thousand rows make several */
    chr_buf_init(&r->out, 64u << 20);
    r->writer = (struct sql_writer_options){.part_bytes = 8u << 20};
    FILE *to = rewrite ? fopen(path, "wb") : NULL;
    unsigned line_number = 0;
    for (char *line = text; *line;) {
        char *end = strchrnul(line, '\n');
        unsigned at = ++line_number;
        size_t len = (size_t)(end - line);
        char how[16] = "";
        bool directive = sscanf(line, "%15s", how) == 1 &&
                         (!strcmp(how, "sql") || !strcmp(how, "columns") ||
                          !strcmp(how, "answer") || !strcmp(how, "hot") || !strcmp(how, "sealed"));
        if (!directive) {
            if (to)
                fprintf(to, "%.*s\n", (int)len, line);
            if (!strncmp(line, "set ", 4))
                set(r, line + 4, sealed);
            else if (len && *line != '#')
                fail_msg("%s:%u: what is this? %.*s", path, at, (int)len, line);
            line = *end ? end + 1 : end;
            continue;
        }
        char *separator = strstr(line, "\n----\n");
        if (!separator)
            fail_msg("%s:%u: no ---- follows", path, at);
        char *statement = line + strlen(how) + (line[strlen(how)] == ' ');
        chr_slice sql = chr_slice_of(statement, (size_t)(separator - statement));
        char *expected = separator + 6, *stop = expected;
        while (*stop && *stop != '\n') { /* to the empty line */
            stop = strchrnul(stop, '\n');
            stop += *stop == '\n';
        }
        bool skip = (!strcmp(how, "hot") && sealed) || (!strcmp(how, "sealed") && !sealed);
        if (!skip) {
            run_statement(r, how, sql);
            cases++;
            bool same = r->out.len == (size_t)(stop - expected) &&
                        memcmp(r->out.ptr ? (char *)r->out.ptr : "", expected, r->out.len) == 0;
            if (!same && (!rewrite || (sealed && strcmp(how, "sealed")))) {
                failures++;
                print_error("%s:%u (%s): %.*s\n--- expected\n%.*s--- answered\n%.*s\n", path, at,
                            sealed ? "sealed" : "hot", (int)sql.len, (const char *)sql.ptr,
                            (int)(stop - expected), expected, (int)r->out.len,
                            r->out.ptr ? (char *)r->out.ptr : "");
            }
            if (sealed && r->wrote)
                kit_checkpoint(&r->kit);
        }
        if (to) {
            fprintf(to, "%.*s\n----\n", (int)(separator - line), line);
            if (skip || (sealed && strcmp(how, "sealed")))
                fwrite(expected, 1, (size_t)(stop - expected), to);
            else
                fwrite(r->out.ptr, 1, r->out.len, to);
            if (*stop == '\n')
                fputc('\n', to);
        }
        for (char *p = line; p < stop; p++)
            line_number += *p == '\n' && p != end;
        line_number += *stop == '\n';
        line = *stop ? stop + 1 : stop;
    }
    if (to)
        fclose(to);
    chr_buf_free(&r->out);
    kit_close(&r->kit);
    free(r);
    free(text);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void run_all(bool sealed)
{
    char *names[256];
    size_t count = 0;
    DIR *dir = opendir(TEST_DIR "/sql");
    assert_non_null(dir);
    const char *only = getenv("CHR_SQL_FILE");
    for (struct dirent *e; (e = readdir(dir));) {
        size_t n = strlen(e->d_name);
        if (n > 4 && !strcmp(e->d_name + n - 4, ".txt") && (!only || strstr(e->d_name, only)))
            names[count++] = strdup(e->d_name);
    }
    closedir(dir);
    assert_true(count > 0);
    qsort(names, count, sizeof *names, by_name);
    cases = failures = 0;
    for (size_t i = 0; i < count; i++) {
        char path[512];
        snprintf(path, sizeof path, TEST_DIR "/sql/%s", names[i]);
        run_file(path, sealed);
        free(names[i]);
    }
    print_message("%u statements\n", cases);
    assert_int_equal(failures, 0);
}

static void hot(void **state)
{
    run_all(false);
}
static void sealed(void **state)
{
    run_all(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hot),
        cmocka_unit_test(sealed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
