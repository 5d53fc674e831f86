/* Text in, text out: *.txt beside this file.
 *
 *     # comment
 *     table env (site STRING, temp FLOAT) TOPIC farm/{site}   first of a group, or one more of it
 *     topic farm/a                                           for the payloads that follow
 *     post readings json                                     a route to a table without a topic
 *     > {"temp":21.5}                                        payload as it stands
 *     >> {"temp":\n21.5}                                     payload with \n \r \t \\ \xff
 *     = env site=a temp=21.5                                 rows, in order
 *     ! column temp: …                                       or the reason, after the table's name
 *     - unmapped                                             or: no mapping matches
 *     - nothing                                              or: accepted without a row
 *     - unknown 2                                            keys that named no column
 *
 * Rows of accepted messages stay in the decoder until the next group, so every reject is also
 * tested against rows that must not change (I1). CHR_REWRITE=1 writes what came out into the files.
 */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/broker/ingest/helper.h"

struct run {
    struct helper h;
    ingest_route *route;
    struct helper_guard payload_page, topic_page;
    struct helper_text out;    /* the file as it should be */
    struct helper_text actual; /* of the payload just decoded */
    struct helper_text before, after;
    bool compiled, tables_open;
    unsigned cases, failures;
    const char *path;
    unsigned line;
};

static size_t unescape(const char *in, uint8_t *out)
{
    size_t len = 0;
    for (; *in; in++) {
        unsigned byte;
        if (*in != '\\') {
            out[len++] = (uint8_t)*in;
        } else if (*++in == 'n') {
            out[len++] = '\n';
        } else if (*in == 'r') {
            out[len++] = '\r';
        } else if (*in == 't') {
            out[len++] = '\t';
        } else if (*in == 'x' && sscanf(in + 1, "%2x", &byte) == 1) {
            out[len++] = (uint8_t)byte;
            in += 2;
        } else {
            out[len++] = (uint8_t)*in;
        }
    }
    return len;
}

static void compile(struct run *r)
{
    if (!r->compiled)
        helper_compile(&r->h, 3u << 20);
    r->compiled = true;
    r->tables_open = false;
    ingest_route_free(r->route);
    r->route = NULL;
}

static void end_group(struct run *r)
{
    if (r->compiled) {
        struct db_entry entry;
        db_entry_init(&entry, DB_ENTRY_BYTES_MAX);
        db_entry_begin(&entry, 0, 7);
        bool any = ingest_pending_rows(r->h.decoder) > 0;
        ingest_flush(r->h.decoder, &entry);
        assert_int_equal(db_entry_end(&entry), CHR_OK);
        assert_int_equal(entry.ops_count > 0, any);
        assert_int_equal(ingest_pending_rows(r->h.decoder), 0);
        db_entry_free(&entry);
    }
    ingest_route_free(r->route);
    r->route = NULL;
    helper_free(&r->h);
    r->compiled = false;
}

static void decode(struct run *r, chr_slice payload)
{
    struct helper_text *a = &r->actual;
    a->len = 0;
    r->cases++;
    if (!r->route) {
        helper_adds(a, "- unmapped\n");
        return;
    }
    r->before.len = r->after.len = 0;
    helper_adds(&r->before, "");
    helper_adds(&r->after, "");
    helper_add_pending(&r->before, &r->h);
    size_t rows = ingest_pending_rows(r->h.decoder), bytes = ingest_pending_bytes(r->h.decoder);
    uint64_t unknown = ingest_unknown_keys(r->h.decoder);
    struct ingest_reject why = {.table_id = 0};
    chr_err err = ingest_decode(r->h.decoder, r->route, helper_guarded(&r->payload_page, payload),
                                HELPER_ARRIVAL, UINT32_MAX, &why);
    helper_add_pending(&r->after, &r->h);
    if (err) {
        const char *table = "?";
        for (uint32_t i = 0; i < r->h.tables_count; i++)
            if (r->h.tables[i]->id == why.table_id)
                table = r->h.tables[i]->name;
        helper_adds(a, "! ");
        helper_adds(a, table);
        helper_adds(a, ": ");
        helper_adds(a, why.reason.text);
        helper_adds(a, "\n");
        if (strcmp(r->before.ptr, r->after.ptr) != 0 || rows != ingest_pending_rows(r->h.decoder) ||
            bytes != ingest_pending_bytes(r->h.decoder))
            helper_adds(a, "- rows changed\n");
        return;
    }
    if (rows == ingest_pending_rows(r->h.decoder))
        helper_adds(a, "- nothing\n");
    /* New rows are those of each table after its old ones. */
    const char *old = r->before.ptr, *now = r->after.ptr;
    while (*now) {
        size_t now_len = strcspn(now, "\n") + 1;
        if (*old && strncmp(old, now, now_len) == 0) {
            old += now_len;
        } else {
            helper_adds(a, "= ");
            helper_add(a, now, now_len);
        }
        now += now_len;
    }
    if (*old)
        helper_adds(a, "- rows changed\n");
    if (ingest_unknown_keys(r->h.decoder) > unknown) {
        char text[64];
        snprintf(text, sizeof text, "- unknown %llu\n",
                 (unsigned long long)(ingest_unknown_keys(r->h.decoder) - unknown));
        helper_adds(a, text);
    }
}

static void make_post_route(struct run *r, const char *words)
{
    char table[64], format[16];
    const char *p = helper_word(words, table, sizeof table);
    helper_word(p, format, sizeof format);
    chr_err err = ingest_route_make_table(
        r->h.mappings, chr_slice_cstr(table),
        strcmp(format, "csv") == 0 ? DB_PAYLOAD_CSV : DB_PAYLOAD_JSON, &r->route);
    assert_true(err == CHR_OK || err == CHR_ENOTFOUND);
}

/* Reads expected lines after a payload, compares. Returns the rest. */
static const char *compare(struct run *r, const char *rest)
{
    struct helper_text expected = {0};
    helper_adds(&expected, "");
    unsigned first = r->line;
    while (*rest == '=' || *rest == '!' || *rest == '-') {
        size_t len = strcspn(rest, "\n");
        helper_add(&expected, rest, len);
        helper_adds(&expected, "\n");
        rest += len + (rest[len] == '\n');
        r->line++;
    }
    if (strcmp(expected.ptr, r->actual.ptr) != 0) {
        r->failures++;
        if (!getenv("CHR_REWRITE"))
            fprintf(stderr, "%s:%u: expected\n%sgot\n%s", r->path, first, expected.ptr,
                    r->actual.ptr);
    }
    free(expected.ptr);
    helper_adds(&r->out, r->actual.ptr);
    return rest;
}

static void run_text(struct run *r, const char *text)
{
    static uint8_t payload[1 << 16];
    char line[1 << 14];
    while (*text) {
        size_t len = strcspn(text, "\n");
        assert_true(len < sizeof line);
        memcpy(line, text, len);
        line[len] = '\0';
        text += len + (text[len] == '\n');
        r->line++;
        helper_add(&r->out, line, len);
        helper_adds(&r->out, "\n");
        if (strncmp(line, "table ", 6) == 0) {
            if (!r->tables_open)
                end_group(r);
            r->tables_open = true;
            helper_add_table(&r->h, line + 6);
        } else if (strncmp(line, "topic ", 6) == 0) {
            compile(r);
            chr_slice topic = helper_guarded(&r->topic_page, chr_slice_cstr(line + 6));
            assert_int_equal(ingest_route_make(r->h.mappings, topic, &r->route), CHR_OK);
            memset((uint8_t *)topic.ptr, 'x', topic.len); /* routes keep nothing of it */
        } else if (strncmp(line, "post ", 5) == 0) {
            compile(r);
            make_post_route(r, line + 5);
        } else if (strncmp(line, ">> ", 3) == 0) {
            decode(r, chr_slice_of(payload, unescape(line + 3, payload)));
            text = compare(r, text);
        } else if (line[0] == '>') {
            decode(r, chr_slice_cstr(line[1] ? line + 2 : ""));
            text = compare(r, text);
        } else if (line[0] && line[0] != '#') {
            helper_die("unknown line", line);
        }
    }
}

static char *read_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        helper_die("cannot read", path);
    struct helper_text t = {0};
    char block[4096];
    size_t n;
    helper_adds(&t, "");
    while ((n = fread(block, 1, sizeof block, f)) > 0)
        helper_add(&t, block, n);
    fclose(f);
    return t.ptr;
}

static unsigned run_file(const char *path, unsigned *cases)
{
    struct run r = {.path = path};
    helper_guard_init(&r.payload_page, 1 << 16);
    helper_guard_init(&r.topic_page, 1 << 12);
    char *text = read_file(path);
    run_text(&r, text);
    end_group(&r);
    if (r.failures && getenv("CHR_REWRITE")) {
        FILE *f = fopen(path, "wb");
        assert_non_null(f);
        fwrite(r.out.ptr, 1, r.out.len, f);
        fclose(f);
        printf("%s: %u cases rewritten\n", path, r.failures);
    }
    helper_guard_free(&r.payload_page);
    helper_guard_free(&r.topic_page);
    free(text);
    free(r.out.ptr);
    free(r.actual.ptr);
    free(r.before.ptr);
    free(r.after.ptr);
    *cases += r.cases;
    return r.failures;
}

static void test_files(void **state)
{
    struct dirent **names;
    int count = scandir(TEST_DIR, &names, NULL, alphasort);
    assert_true(count > 0);
    unsigned cases = 0, failures = 0;
    for (int i = 0; i < count; i++) {
        size_t len = strlen(names[i]->d_name);
        if (len > 4 && strcmp(names[i]->d_name + len - 4, ".txt") == 0) {
            char path[4096];
            snprintf(path, sizeof path, "%s/%s", TEST_DIR, names[i]->d_name);
            failures += run_file(path, &cases);
        }
        free(names[i]);
    }
    free(names);
    printf("%u cases, %u failed\n", cases, failures);
    assert_true(cases > 300);
    assert_int_equal(failures, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_files)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
