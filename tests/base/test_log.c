/* log.c: one line per call, and no value can make it two. */
#include "tests/base/check.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include "base/log.h"
#include "base/utf8.h"

static int out[2], rest[2];

static void nonblocking_pipe(int fds[2])
{
    assert_int_equal(pipe(fds), 0);
    assert_int_equal(fcntl(fds[0], F_SETFL, O_NONBLOCK), 0);
}

static int setup(void **state)
{
    nonblocking_pipe(out);
    nonblocking_pipe(rest);
    chr_log_set_output(out[1], CHR_LOG_DEBUG, -1);
    chr_log_set_level(CHR_LOG_INFO);
    chr_log_set_format(CHR_LOG_TEXT);
    return 0;
}

static int teardown(void **state)
{
    chr_log_set_output(STDERR_FILENO, CHR_LOG_DEBUG, -1);
    for (int i = 0; i < 2; i++) {
        close(out[i]);
        close(rest[i]);
    }
    return 0;
}

/* What arrived, zero-terminated; valid until the next call. */
static char *received(int fd)
{
    static char text[70000];
    ssize_t n = read(fd, text, sizeof text - 1);
    text[n < 0 ? 0 : n] = '\0';
    return text;
}

/* The line after its time, which is checked for form. */
static const char *after_time(const char *line)
{
    static const char form[] = "dddd-dd-ddTdd:dd:dd.dddZ ";
    for (size_t i = 0; i < sizeof form - 1; i++)
        if (form[i] == 'd')
            assert_in_range(line[i], '0', '9');
        else
            assert_int_equal(line[i], form[i]);
    return line + sizeof form - 1;
}

static void a_line_of_text(void **state)
{
    errno = EXDEV;
    chr_log_info("net", "client connected", CHR_KV_C("client", "esp-001"),
                 CHR_KV_C("address", "10.0.0.7:51234"), CHR_KV_I("fd", -7),
                 CHR_KV_U("id", UINT64_MAX), CHR_KV_F("load", 0.5));
    assert_int_equal(errno, EXDEV);
    assert_string_equal(after_time(received(out[0])),
                        "info net: client connected client=esp-001 address=10.0.0.7:51234 fd=-7 "
                        "id=18446744073709551615 load=0.5\n");
    chr_log_error("raft", "alone");
    assert_string_equal(after_time(received(out[0])), "error raft: alone\n");
}

static void a_line_of_json(void **state)
{
    chr_log_set_format(CHR_LOG_JSON);
    chr_log_warning("net", "say \"hi\"", CHR_KV_C("client", "a\"b\\c\n\x01"), CHR_KV_I("n", 5),
                    CHR_KV_F("load", 1.0 / 0.0), CHR_KV_S("none", (chr_slice){0}));
    char *line = received(out[0]);
    assert_memory_equal(line, "{\"time\":\"2", 10);
    assert_string_equal(strstr(line, ",\"level\""),
                        ",\"level\":\"warning\",\"part\":\"net\",\"message\":\"say \\\"hi\\\"\","
                        "\"client\":\"a\\\"b\\\\c\\n\\u0001\",\"n\":5,\"load\":\"Infinity\","
                        "\"none\":\"\"}\n");
}

static void values_are_quoted_when_they_need_it(void **state)
{
    static const struct {
        chr_slice value;
        const char *written;
    } cases[] = {
        {CHR_LIT_INIT("plain-1.2:3/4"), "plain-1.2:3/4"},
        {CHR_LIT_INIT(""), "\"\""},
        {CHR_LIT_INIT("two words"), "\"two words\""},
        {CHR_LIT_INIT("a=b"), "\"a=b\""},
        {CHR_LIT_INIT("quo\"te"), "\"quo\\\"te\""},
        {CHR_LIT_INIT("back\\slash"), "\"back\\\\slash\""},
        {CHR_LIT_INIT("x\n2024-12-10T00:00:00.000Z error net: forged"),
         "\"x\\n2024-12-10T00:00:00.000Z error net: forged\""},
        {CHR_LIT_INIT("tab\tcr\r"), "\"tab\\tcr\\r\""},
        {CHR_LIT_INIT("\x1b[2J"), "\"\\u001b[2J\""}, /* clears a terminal */
        {CHR_LIT_INIT("\xc2\x9b"
                      "2J"),
         "\"\\u009b2J\""}, /* so does C1 */
        {CHR_LIT_INIT("a\0b"), "\"a\\u0000b\""},
        {CHR_LIT_INIT("\x7f"), "\"\\u007f\""},
        {CHR_LIT_INIT("caf\xc3\xa9"), "\"caf\xc3\xa9\""},
        {CHR_LIT_INIT("\xf0\x9f\x8c\xa1"), "\"\xf0\x9f\x8c\xa1\""},
        {CHR_LIT_INIT("\xff\xc3"), "\"\\xff\\xc3\""}, /* not UTF-8 */
        {CHR_LIT_INIT("a\xe2\x80\xae"
                      "b"),
         "\"a\\u202eb\""}, /* right-to-left override */
        {CHR_LIT_INIT("a\xe2\x80\xa8"
                      "b"),
         "\"a\\u2028b\""}, /* line separator */
    };
    for (size_t i = 0; i < CHR_COUNT_OF(cases); i++) {
        chr_log_info("net", "m", CHR_KV_S("client", cases[i].value));
        char expected[200];
        snprintf(expected, sizeof expected, "info net: m client=%s\n", cases[i].written);
        assert_string_equal(after_time(received(out[0])), expected);
    }
    /* A message made from foreign text stays one line, too. */
    chr_log_info("net", "bad\nline");
    assert_string_equal(after_time(received(out[0])), "info net: bad\\nline\n");
}

static void a_log_that_cannot_be_written_is_dropped(void **state)
{
    int fds[2];
    nonblocking_pipe(fds);
    close(fds[1]);
    chr_log_set_output(fds[1], CHR_LOG_DEBUG, -1);
    errno = EXDEV;
    chr_log_info("net", "nowhere"); /* EBADF, which is nobody's business */
    assert_int_equal(errno, EXDEV);
    close(fds[0]);
    /* A full pipe: no waiting. */
    assert_int_equal(fcntl(rest[1], F_SETFL, O_NONBLOCK), 0);
    chr_log_set_output(rest[1], CHR_LOG_DEBUG, -1);
    for (int i = 0; i < 5000; i++)
        chr_log_info("net", "many");
    assert_int_equal(errno, EXDEV);
}

/* Reads one JSON string at p; returns what follows, or fails. */
static const char *json_string(const char *p)
{
    assert_int_equal(*p++, '"');
    while (*p != '"') {
        assert_true((unsigned char)*p >= 0x20);
        if (*p == '\\') {
            p++;
            assert_non_null(strchr("\"\\nrtu", *p));
            if (*p == 'u')
                for (int i = 0; i < 4; i++)
                    assert_non_null(strchr("0123456789abcdef", *++p));
        }
        p++;
    }
    return p + 1;
}

/* An object of strings, numbers and true, on one line. */
static void assert_json_line(const char *line)
{
    const char *p = line;
    assert_true(chr_utf8_valid(chr_slice_cstr(line)));
    assert_int_equal(*p++, '{');
    for (;;) {
        p = json_string(p);
        assert_int_equal(*p++, ':');
        if (*p == '"')
            p = json_string(p);
        else
            p += strspn(p, "-+.e0123456789true");
        if (*p != ',')
            break;
        p++;
    }
    assert_string_equal(p, "}\n");
}

static void random_bytes_stay_one_line(void **state)
{
    struct chr_random random = test_random(11);
    for (int i = 0; i < 20000; i++) {
        uint8_t a[100], b[100];
        size_t la = chr_random_below(&random, sizeof a), lb = chr_random_below(&random, sizeof b);
        for (size_t k = 0; k < sizeof a; k++) {
            /* Much of what is special, some of all. */
            static const char special[] = "\"\\\n\r\t =\x1b{},:\xc3\xa9\xe2\x80\xa8\xff";
            a[k] = k % 2 ? (uint8_t)special[chr_random_below(&random, sizeof special)]
                         : (uint8_t)chr_random_u64(&random);
            b[k] = (uint8_t)chr_random_u64(&random);
        }
        chr_log_set_format(i % 2 ? CHR_LOG_JSON : CHR_LOG_TEXT);
        chr_log_info("net", "m", CHR_KV_S("a", chr_slice_of(a, la)),
                     CHR_KV_S("b", chr_slice_of(b, lb)), CHR_KV_I("c", i));
        char *line = received(out[0]);
        if (i % 2) {
            assert_json_line(line);
            continue;
        }
        assert_ptr_equal(strchr(line, '\n'), line + strlen(line) - 1);
        for (char *p = line; *p != '\n'; p++)
            assert_true((uint8_t)*p >= 0x20 && *p != 0x7f);
        assert_true(chr_utf8_valid(chr_slice_cstr(line)));
    }
}

static void long_values_are_cut_and_lines_complete(void **state)
{
    static char big[5000];
    for (int format = CHR_LOG_TEXT; format <= CHR_LOG_JSON; format++) {
        chr_log_set_format((enum chr_log_format)format);
        for (int fill = 0; fill < 3; fill++) {
            memset(big, fill == 0 ? 'x' : fill == 1 ? '\n' : '\xff', sizeof big);
            chr_slice s = chr_slice_of(big, sizeof big);
            chr_log_info("net", "m", CHR_KV_S("a", s), CHR_KV_S("b", s), CHR_KV_S("c", s),
                         CHR_KV_S("d", s), CHR_KV_S("e", s), CHR_KV_S("f", s), CHR_KV_S("g", s),
                         CHR_KV_S("h", s), CHR_KV_S("i", s), CHR_KV_I("last", 1));
            char *line = received(out[0]);
            assert_true(strlen(line) <= 8192);
            assert_ptr_equal(strchr(line, '\n'), line + strlen(line) - 1);
            assert_non_null(strstr(line, "...\""));
            assert_non_null(strstr(line, "truncated"));
            assert_non_null(strstr(line, "last")); /* what fits is not lost with what does not */
            if (format == CHR_LOG_JSON)
                assert_json_line(line);
        }
    }
    /* Cut inside a character: the whole character goes. */
    for (int shift = 0; shift < 3; shift++) {
        for (int i = 0; i < 1000; i++)
            memcpy(big + shift + i * 3, "\xe2\x82\xac", 3);
        memset(big, 'a', (size_t)shift);
        chr_log_info("net", "m", CHR_KV_S("a", chr_slice_of(big, 3000)));
        char *line = received(out[0]);
        assert_json_line(line);
        assert_null(strstr(line, "fffd"));
    }
}

static void levels_and_outputs(void **state)
{
    chr_log_set_level(CHR_LOG_WARNING);
    chr_log_info("net", "quiet");
    assert_string_equal(received(out[0]), "");
    assert_false(chr_log_enabled(CHR_LOG_NOTICE));
    assert_true(chr_log_enabled(CHR_LOG_ERROR));
    chr_log_set_level(CHR_LOG_DEBUG);
    chr_log_set_output(out[1], CHR_LOG_WARNING, rest[1]);
    chr_log_debug("net", "one");
    chr_log_warning("net", "two");
    chr_log_notice("net", "three");
    assert_string_equal(after_time(received(out[0])), "warning net: two\n");
    const char *line = received(rest[0]);
    assert_non_null(strstr(line, "debug net: one\n"));
    assert_non_null(strstr(line, "notice net: three\n"));
    assert_null(strstr(line, "two"));
}

static void level_words(void **state)
{
    static const char *const words[] = {"error", "warning", "notice", "info", "debug"};
    enum chr_log_level level;
    for (int i = 0; i < 5; i++) {
        assert_int_equal(chr_log_level_parse(chr_slice_cstr(words[i]), &level), CHR_OK);
        assert_int_equal(level, i);
    }
    assert_int_equal(chr_log_level_parse(CHR_LIT("loud"), &level), CHR_EINVAL);
    assert_int_equal(chr_log_level_parse(CHR_LIT(""), &level), CHR_EINVAL);
    assert_int_equal(chr_log_level_parse(CHR_LIT("infoo"), &level), CHR_EINVAL);
}

static void *write_many(void *arg)
{
    for (int i = 0; i < 2000; i++)
        chr_log_info("net", "m", CHR_KV_I("thread", *(int *)arg), CHR_KV_I("i", i),
                     CHR_KV_C("end", "here"));
    return NULL;
}

static void lines_of_threads_do_not_mix(void **state)
{
    FILE *file = tmpfile();
    int fd = fileno(file);
    assert_int_equal(fcntl(fd, F_SETFL, O_APPEND), 0);
    chr_log_set_output(fd, CHR_LOG_DEBUG, -1);
    pthread_t threads[3];
    int numbers[3] = {0, 1, 2}, next[3] = {0};
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, write_many, &numbers[i]), 0);
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    chr_log_set_output(out[1], CHR_LOG_DEBUG, -1);
    rewind(file);
    char line[200];
    int lines = 0;
    while (fgets(line, sizeof line, file)) {
        int thread, i, used = 0;
        assert_int_equal(
            sscanf(after_time(line), "info net: m thread=%d i=%d end=here\n%n", &thread, &i, &used),
            2);
        assert_true(used > 0);
        assert_int_equal(i, next[thread]++);
        lines++;
    }
    assert_int_equal(lines, 6000);
    fclose(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_line_of_text, setup, teardown),
        cmocka_unit_test_setup_teardown(a_line_of_json, setup, teardown),
        cmocka_unit_test_setup_teardown(values_are_quoted_when_they_need_it, setup, teardown),
        cmocka_unit_test_setup_teardown(a_log_that_cannot_be_written_is_dropped, setup, teardown),
        cmocka_unit_test_setup_teardown(random_bytes_stay_one_line, setup, teardown),
        cmocka_unit_test_setup_teardown(long_values_are_cut_and_lines_complete, setup, teardown),
        cmocka_unit_test_setup_teardown(levels_and_outputs, setup, teardown),
        cmocka_unit_test_setup_teardown(level_words, setup, teardown),
        cmocka_unit_test_setup_teardown(lines_of_threads_do_not_mix, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
