/* Settings as text: what a file, the environment and flags make of a broker_config.
 *
 *     file                     lines of a config file, until the next word at the margin
 *       hot_limit 1GiB
 *     env CHRONOS_FSYNC=every
 *     flags --loops 3
 *     ----
 *     hot_limit_bytes 1073741824       each field that is not its default, or `error: …`
 *
 * Cases are separated by a blank line; CHR_REWRITE=1 writes the expectations anew. */
#include "../../base/check.h"

#include <inttypes.h>
#include <netdb.h>
#include <unistd.h>

#include "base/buf.h"
#include "broker/commands/settings.h"

#define CASE_LINES 64

static const char *fsync_name(enum raft_fsync fsync)
{
    return fsync == RAFT_FSYNC_BATCH ? "batch" : fsync == RAFT_FSYNC_EVERY ? "every" : "periodic";
}

/* A lone listener is shown without its address, which is the node's. */
static void dump_listener(const struct listener_config *c, bool alone, struct chr_buf *out)
{
    struct listener_config d;
    listener_config_default(&d);
    size_t before = out->len;
    chr_buf_addf(out, "listener %s:", c->unix_path ? c->unix_path : c->address);
    size_t head = out->len;
#define L_NUMBER(field)                                                                            \
    if (c->field != d.field)                                                                       \
    chr_buf_addf(out, " " #field "=%u", (unsigned)c->field)
#define L_TEXT(field)                                                                              \
    if (c->field)                                                                                  \
    chr_buf_addf(out, " " #field "=%s", c->field)
    L_NUMBER(protocol);
    L_NUMBER(domain);
    L_TEXT(bind_interface);
    L_NUMBER(unix_mode);
    L_TEXT(certfile);
    L_TEXT(keyfile);
    L_TEXT(cafile);
    L_TEXT(capath);
    L_TEXT(crlfile);
    L_NUMBER(tls_version);
    L_TEXT(ciphers);
    L_TEXT(ciphersuites);
    L_NUMBER(require_certificate);
    L_NUMBER(use_identity_as_username);
    L_NUMBER(use_subject_as_username);
    L_NUMBER(allow_anonymous);
    L_NUMBER(max_connections);
    L_NUMBER(max_packet_size);
    L_NUMBER(max_qos);
    L_NUMBER(max_topic_alias_set);
    L_NUMBER(max_topic_alias);
    L_NUMBER(proxy_protocol);
    L_TEXT(websockets_origin);
    if (alone && out->len == head && !c->unix_path)
        out->len = before;
    else
        chr_buf_addf(out, "\n");
}

static void dump(const struct settings *s, struct chr_buf *out)
{
    struct broker_config d;
    broker_config_default(&d);
    const struct broker_config *c = &s->config;
#define NUMBER(field)                                                                              \
    if (c->field != d.field)                                                                       \
    chr_buf_addf(out, #field " %" PRIu64 "\n", (uint64_t)c->field)
#define TEXT(field)                                                                                \
    if ((c->field != NULL) != (d.field != NULL) || (c->field && strcmp(c->field, d.field)))        \
    chr_buf_addf(out, #field " %s\n", c->field)
    TEXT(data_dir);
    TEXT(address);
    TEXT(admin_address);
    NUMBER(enable_ingest);
    if (c->loops != d.loops)
        chr_buf_addf(out, "loops %u\n", c->loops);
    if (c->fsync != d.fsync)
        chr_buf_addf(out, "fsync %s\n", fsync_name(c->fsync));
    NUMBER(fsync_periodic_ms);
    NUMBER(map_bytes);
    NUMBER(hot_limit_bytes);
    NUMBER(checkpoint_log_bytes);
    NUMBER(checkpoint_age_s);
    NUMBER(log_segment_bytes);
    NUMBER(log_retain_bytes);
    NUMBER(allow_anonymous);
    NUMBER(max_connections);
    NUMBER(max_packet_size);
    NUMBER(receive_maximum);
    NUMBER(topic_alias_maximum);
    NUMBER(topic_aliases_sent);
    NUMBER(max_inflight_messages);
    NUMBER(max_queued_messages);
    NUMBER(max_queued_bytes);
    NUMBER(max_output_bytes);
    NUMBER(max_keepalive_s);
    NUMBER(max_session_expiry_s);
    NUMBER(connect_timeout_s);
    NUMBER(redirect);
    if (c->server_reference)
        chr_buf_addf(out, "server_reference %s\n", c->server_reference);
    NUMBER(max_retained_messages);
    NUMBER(max_retained_bytes);
    NUMBER(max_subscriptions_per_client);
    NUMBER(batches_per_loop);
    NUMBER(batch_rows_max);
    NUMBER(batch_bytes_max);
    NUMBER(receive_bytes_per_loop);
    NUMBER(query_threads);
    NUMBER(query_queue_max);
    NUMBER(query_memory_bytes);
    NUMBER(query_timeout_ms);
    NUMBER(query_result_part_bytes);
    NUMBER(log_level);
    NUMBER(log_format);
    NUMBER(websockets_headers_size);
    bool alone = c->listeners_count == 1;
    for (uint32_t i = 0; i < c->listeners_count; i++)
        dump_listener(&c->listeners[i], alone, out);
    if (s->test_config)
        chr_buf_addf(out, "test_config\n");
    if (s->help)
        chr_buf_addf(out, "help\n");
    if (!out->len)
        chr_buf_addf(out, "defaults\n");
}

/* ---- One case ---------------------------------------------------------------------------------
 */

struct one_case {
    struct chr_buf file;
    bool has_file;
    char flags[CASE_LINES][256];
    int flags_count;
    char env[CASE_LINES][256];
    int env_count;
};

static void add_flags(struct one_case *c, char *rest)
{
    /* Words, single quotes keep blanks. */
    while (*rest) {
        while (*rest == ' ')
            rest++;
        if (!*rest)
            break;
        char *out = c->flags[c->flags_count++];
        bool quoted = false;
        for (; *rest && (quoted || *rest != ' '); rest++) {
            if (*rest == '\'')
                quoted = !quoted;
            else
                *out++ = *rest;
        }
        *out = 0;
    }
}

static void run_case(struct one_case *c, struct chr_buf *out)
{
    char path[] = "/tmp/chronos-settings-XXXXXX";
    char *argv[CASE_LINES + 2];
    int argc = 0;
    if (c->has_file) {
        int fd = mkstemp(path);
        assert_true(fd >= 0);
        assert_int_equal(write(fd, c->file.ptr, c->file.len), c->file.len);
        close(fd);
        argv[argc++] = "--config";
        argv[argc++] = path;
    }
    for (int i = 0; i < c->flags_count; i++)
        argv[argc++] = c->flags[i];
    for (int i = 0; i < c->env_count; i++)
        putenv(c->env[i]);
    struct settings settings;
    struct chr_errmsg msg = {{0}};
    chr_err err = settings_load(&settings, false, argc, argv, &msg);
    if (err) {
        /* The file's name differs from run to run. */
        char *at = c->has_file ? strstr(msg.text, path) : NULL;
        if (at)
            chr_buf_addf(out, "error: %.*sFILE%s\n", (int)(at - msg.text), msg.text,
                         at + strlen(path));
        else
            chr_buf_addf(out, "error: %s\n", msg.text);
    } else {
        dump(&settings, out);
    }
    settings_free(&settings);
    for (int i = 0; i < c->env_count; i++) {
        c->env[i][strcspn(c->env[i], "=")] = 0;
        unsetenv(c->env[i]);
    }
    if (c->has_file)
        unlink(path);
}

static void settings_as_text(void **state)
{
    (void)state;
    FILE *in = fopen(TEST_DIR "/settings.txt", "r");
    assert_non_null(in);
    static struct one_case c;
    memset(&c, 0, sizeof c);
    chr_buf_init(&c.file, 65536);
    struct chr_buf expected, actual, rewritten;
    chr_buf_init(&expected, 65536);
    chr_buf_init(&actual, 65536);
    chr_buf_init(&rewritten, 1 << 20);
    char line[1024];
    int number = 0, began = 0, failed = 0, cases = 0;
    enum { INPUT, IN_FILE, EXPECT } where = INPUT;
    for (bool more = true; more;) {
        more = fgets(line, sizeof line, in) != NULL;
        number++;
        if (!more)
            line[0] = 0;
        bool blank = line[0] == '\n' || !more;
        if (where == EXPECT && !blank) {
            chr_buf_add_cstr(&expected, line);
            continue;
        }
        if (where == EXPECT) {
            chr_buf_reset(&actual);
            run_case(&c, &actual);
            cases++;
            if (!chr_slice_eq(chr_buf_slice(&expected), chr_buf_slice(&actual))) {
                print_error("settings.txt:%d: expected\n%.*sgot\n%.*s", began,
                            CHR_SLICE_ARGS(chr_buf_slice(&expected)),
                            CHR_SLICE_ARGS(chr_buf_slice(&actual)));
                failed++;
            }
            chr_buf_add_slice(&rewritten, chr_buf_slice(&actual));
            chr_buf_free(&c.file);
            memset(&c, 0, sizeof c);
            chr_buf_init(&c.file, 65536);
            chr_buf_reset(&expected);
            where = INPUT;
        }
        chr_buf_add_cstr(&rewritten, line);
        if (blank || line[0] == '#')
            continue;
        if (line[0] == ' ') {
            assert_int_equal(where, IN_FILE);
            chr_buf_add_cstr(&c.file, line + 2);
            continue;
        }
        line[strcspn(line, "\n")] = 0;
        if (!strcmp(line, "file")) {
            c.has_file = true;
            where = IN_FILE;
        } else if (!strncmp(line, "env ", 4)) {
            snprintf(c.env[c.env_count++], sizeof c.env[0], "%.255s", line + 4);
        } else if (!strncmp(line, "flags", 5)) {
            add_flags(&c, line + 5);
        } else if (!strcmp(line, "----")) {
            where = EXPECT;
            began = number;
        } else {
            fail_msg("settings.txt:%d: %s", number, line);
        }
    }
    fclose(in);
    if (getenv("CHR_REWRITE")) {
        FILE *out = fopen(TEST_DIR "/settings.txt", "w");
        fwrite(rewritten.ptr, 1, rewritten.len, out);
        fclose(out);
        failed = 0;
    }
    chr_buf_free(&expected);
    chr_buf_free(&actual);
    chr_buf_free(&rewritten);
    chr_buf_free(&c.file);
    assert_int_equal(failed, 0);
    assert_true(cases > 40);
}

/* ---- What text can't say ----------------------------------------------------------------------
 */

static void a_file_that_is_not_there(void **state)
{
    (void)state;
    struct settings settings;
    struct chr_errmsg msg = {{0}};
    char *argv[] = {"--config", "/nonexistent/chronos.conf"};
    assert_int_equal(settings_load(&settings, false, 2, argv, &msg), CHR_EINVAL);
    assert_string_equal(
        msg.text, "can't open config file /nonexistent/chronos.conf: No such file or directory");
    settings_free(&settings);
}

static chr_err load_bytes(const char *bytes, size_t len, struct chr_errmsg *msg)
{
    char path[] = "/tmp/chronos-settings-XXXXXX";
    int fd = mkstemp(path);
    assert_int_equal(write(fd, bytes, len), len);
    close(fd);
    struct settings settings;
    char *argv[] = {"--config", path};
    chr_err err = settings_load(&settings, false, 2, argv, msg);
    settings_free(&settings);
    unlink(path);
    return err;
}

/* A file from another system: byte order mark, CR LF, no newline at its end; and one that is none.
 */
static void bytes_of_files(void **state)
{
    (void)state;
    struct chr_errmsg msg = {{0}};
    assert_int_equal(load_bytes("\xef\xbb\xbf# x\r\nloops 2\r\nfsync every", 28, &msg), CHR_OK);
    assert_int_equal(load_bytes("", 0, &msg), CHR_OK);
    assert_int_equal(load_bytes("loops 2\0\n", 9, &msg), CHR_EINVAL);
    assert_int_equal(load_bytes("\0\0\0\0", 4, &msg), CHR_EINVAL);
    char *large = calloc(1, 1 << 20);
    memset(large, '\n', 1 << 20);
    assert_int_equal(load_bytes(large, 1 << 20, &msg), CHR_EINVAL);
    free(large);
}

/* Whatever bytes come, settings are accepted or refused with a sentence. */
static void random_files(void **state)
{
    (void)state;
    struct chr_random random = test_random(20);
    static const char *const pieces[] = {"loops",    "hot_limit",
                                         " ",        "=",
                                         "\n",       "64MiB",
                                         "-",        "\xff",
                                         "listener", "1883",
                                         "#",        "127.0.0.1",
                                         ":",        "[::1]",
                                         "\t",       "max_conections",
                                         "true",     "999999999999999999999"};
    for (int round = 0; round < 3000; round++) {
        struct chr_buf text;
        chr_buf_init(&text, 4096);
        for (uint64_t n = chr_random_u64(&random) % 12; n; n--)
            chr_buf_add_cstr(&text, pieces[chr_random_u64(&random) % CHR_COUNT_OF(pieces)]);
        struct options options;
        struct settings settings;
        struct chr_errmsg msg = {{0}};
        assert_int_equal(settings_load(&settings, false, 0, NULL, &msg), CHR_OK);
        options = settings.options;
        chr_err err = options_text(&options, "f", chr_buf_slice(&text), &msg);
        assert_true(err == CHR_OK || (err == CHR_EINVAL && msg.text[0]));
        settings.options = options;
        settings_free(&settings);
        chr_buf_free(&text);
    }
}

static void nearest_words(void **state)
{
    (void)state;
    const char *words[] = {"single-node", "node", "client", "check", NULL};
    assert_string_equal(options_nearest("singel-node", words), "single-node");
    assert_string_equal(options_nearest("cleint", words), "client");
    assert_string_equal(options_nearest("single_node", words), "single-node");
    assert_null(options_nearest("frobnicate", words));
    assert_null(options_nearest("", words));
}

static void loopback(void **state)
{
    (void)state;
    assert_true(settings_is_loopback("127.0.0.1:1883"));
    assert_true(settings_is_loopback("127.9.9.9:1"));
    assert_true(settings_is_loopback("[::1]:1883"));
    struct addrinfo *list = NULL; /* a bare chroot does not know the name */
    if (getaddrinfo("localhost", NULL, NULL, &list) == 0) {
        freeaddrinfo(list);
        assert_true(settings_is_loopback("localhost:1883"));
    }
    assert_false(settings_is_loopback(":1883"));
    assert_false(settings_is_loopback("0.0.0.0:1883"));
    assert_false(settings_is_loopback("[::]:1883"));
    assert_false(settings_is_loopback("10.0.0.1:1883"));
}

/* The help names every option, and itself fits. */
static void help_lists_all(void **state)
{
    (void)state;
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    settings_help(out, true);
    fclose(out);
    const char *names[] = {"--hot-limit BYTES", "(64MiB)", "--fsync MODE", "(batch)",
                           "--peers",           "(600s)",  "--help"};
    for (size_t i = 0; i < CHR_COUNT_OF(names); i++)
        if (!strstr(text, names[i]))
            fail_msg("%s is missing in\n%s", names[i], text);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(settings_as_text), cmocka_unit_test(a_file_that_is_not_there),
        cmocka_unit_test(bytes_of_files),   cmocka_unit_test(random_files),
        cmocka_unit_test(nearest_words),    cmocka_unit_test(loopback),
        cmocka_unit_test(help_lists_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
