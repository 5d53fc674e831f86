/* tests/proto/test_mqtt_rules.c: the rules of the wire format, one case each, from text.
 *
 * The .txt files of tests/proto/mqtt: a comment that starts with the rule's number, the input
 * (version, sender, bytes as in mqtt_text.h), and what the decoder says, up to an empty line:
 *
 *     # MQTT-3.3.1-4: both QoS bits are set.
 *     5 client: 36 <s'a' 0001 <> 'x'>
 *     fault 0x81 MQTT-3.3.1-4
 *
 * `max=N` behind the sender is the maximum packet size, `unexpected` asks mqtt_unexpected_packet().
 * CHR_REWRITE=1 writes what the decoder says into the files; look at the diff before believing it.
 *
 * Each case is run at the end of a guard page, its packet is cut at every byte, and what decodes is
 * encoded and decoded again. At the end, every row of the fault table must have been seen. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "guard.h"
#include "mqtt_text.h"
#include "proto/mqtt/fault.h"

static struct guard guard;
static bool seen[MQTT_FAULTS_COUNT][2]; /* [fault][version is 5] */
static unsigned cases_count, failures_count;

struct input {
    enum mqtt_version version;
    enum mqtt_sender sender;
    uint32_t max_packet_size;
    bool unexpected;
};

static void fail_case(const char *file, int line, const char *what, const char *got)
{
    fprintf(stderr, "%s:%d: %s\n%s\n", file, line, what, got ? got : "");
    failures_count++;
}

static void note_fault(const struct mqtt_fault *fault, enum mqtt_version version)
{
    for (unsigned i = 0; i < MQTT_FAULTS_COUNT; i++) {
        const char *rule = version == MQTT_V5 ? mqtt__faults[i].rule5 : mqtt__faults[i].rule311;
        bool by_property = i == MQTT_FAULT_PROPERTY_TWICE || i == MQTT_FAULT_PROPERTY_VALUE ||
                           i == MQTT_FAULT_PROPERTY_MISPLACED;
        const char *tail = i == MQTT_FAULT_PROPERTY_TWICE   ? "more than once"
                           : i == MQTT_FAULT_PROPERTY_VALUE ? "a value it may not have"
                                                            : "does not belong into this packet";
        if (by_property ? strstr(fault->text, tail) != NULL && version == MQTT_V5
                        : fault->text == mqtt__faults[i].text && rule && rule == fault->rule)
            seen[i][version == MQTT_V5] = true;
    }
}

/* Frames and decodes bytes that end at the guard page; says what happened. */
static void decode_text(const struct input *in, chr_slice bytes, struct chr_buf *out,
                        struct any_packet *any, bool *valid)
{
    struct mqtt_frame frame;
    struct mqtt_fault fault = {0};
    *valid = false;
    int used = in->sender == MQTT_FROM_CLIENT
                   ? mqtt_frame(bytes, in->max_packet_size, &frame)
                   : mqtt_frame_from_server(bytes, in->max_packet_size, &frame);
    if (used == 0) {
        if (frame.packet_bytes)
            chr_buf_addf(out, "need %u\n", (unsigned)frame.packet_bytes);
        else
            chr_buf_add_cstr(out, "need header\n");
        return;
    }
    chr_err err = used < 0 ? used : CHR_OK;
    enum mqtt_version version = in->version;
    if (used < 0) {
        mqtt_frame_fault(bytes, err, version, &fault);
    } else if (in->unexpected) {
        err = mqtt_unexpected_packet(&frame, version, &fault);
    } else {
        err = any_decode(&frame, version, any, &fault);
        version = any->version;
    }
    if (err) {
        note_fault(&fault, version);
        dump_fault(out, &fault);
        chr_err expected = fault.reason_code == 0x81   ? CHR_EMALFORMED
                           : fault.reason_code == 0x95 ? CHR_ETOOBIG
                                                       : CHR_EPROTO;
        assert_int_equal(err, expected);
        return;
    }
    *valid = true;
    dump_packet(out, any);
    assert_true(any_properties_agree(any));
    if ((size_t)used != bytes.len)
        chr_buf_addf(out, "then %zu bytes\n", bytes.len - (size_t)used);
}

/* Every shorter body must be decoded or refused without a look past its end, and every shorter
 * input must ask for more. */
static void cut(const struct input *in, chr_slice whole, const char *file, int line)
{
    struct mqtt_frame frame;
    int used = mqtt_frame(whole, in->max_packet_size, &frame);
    if (used <= 0)
        return;
    for (size_t len = 0; len < (size_t)used; len++) {
        if (len > 64 && (size_t)used - len > 64) /* long payloads: both ends are enough */
            continue;
        struct mqtt_frame part;
        chr_slice s = guard_copy(&guard, whole.ptr, len);
        if (mqtt_frame(s, 0, &part) != 0)
            fail_case(file, line, "part of a packet was taken for a whole one", NULL);
    }
    size_t body_bytes = frame.body.len;
    for (size_t len = 0; len < body_bytes; len++) {
        if (len > 64 && body_bytes - len > 64)
            continue;
        struct any_packet any;
        struct mqtt_fault fault = {0};
        frame.sender = in->sender;
        frame.body = guard_copy(&guard, whole.ptr + (size_t)used - body_bytes, len);
        if (any_decode(&frame, in->version, &any, &fault) == CHR_OK) {
            uint8_t out[4096]; /* reads everything that was decoded */
            (void)any_encode(out, sizeof out, &any);
        } else {
            assert_non_null(fault.rule);
            assert_non_null(fault.text);
        }
    }
}

/* decode(encode(packet)) == packet, in exactly the bytes that were announced. */
static void round_trip(const struct input *in, const struct any_packet *any, const char *expected,
                       const char *file, int line)
{
    size_t size = any_encode(NULL, 0, any);
    uint8_t *bytes = (uint8_t *)malloc(size + 1);
    assert_non_null(bytes);
    bytes[size] = 0xa5;
    if (size == 0 || any_encode(bytes, size, any) != size || bytes[size] != 0xa5)
        fail_case(file, line, "encoding does not have its announced size", NULL);
    else if (any_encode(bytes, size - 1, any) != 0)
        fail_case(file, line, "encoding into too little room succeeded", NULL);
    else {
        any_encode(bytes, size, any);
        struct chr_buf out;
        chr_buf_init(&out, 1 << 20);
        struct any_packet again;
        bool valid;
        /* The first packet's slices may lie in the guarded bytes, so keep away from those. */
        struct input plain = *in;
        plain.max_packet_size = 0;
        decode_text(&plain, chr_slice_of(bytes, size), &out, &again, &valid);
        if (!chr_slice_eq(chr_buf_slice(&out), chr_slice_cstr(expected))) {
            chr_buf_add_u8(&out, 0);
            fail_case(file, line, "does not decode to itself again:", (const char *)out.ptr);
        }
        chr_buf_free(&out);
    }
    free(bytes);
}

/* CHR_CORPUS=dir: the cases as seeds of tests/fuzz/fuzz_mqtt.c. */
static void write_seed(const struct input *in, chr_slice bytes, const char *file, int line)
{
    const char *dir = getenv("CHR_CORPUS");
    if (!dir || bytes.len > 4096)
        return;
    char path[1024];
    const char *name = strrchr(file, '/') + 1;
    snprintf(path, sizeof path, "%s/%.*s_%d", dir, (int)strcspn(name, "."), name, line);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputc((in->version == MQTT_V5) | (in->sender == MQTT_FROM_SERVER) << 1, f);
    fwrite(bytes.ptr, 1, bytes.len, f);
    fclose(f);
}

static bool parse_input(const char *text, struct input *in, const char **bytes)
{
    *in = (struct input){0};
    if (!strncmp(text, "5 ", 2))
        in->version = MQTT_V5, text += 2;
    else if (!strncmp(text, "3.1.1 ", 6))
        in->version = MQTT_V311, text += 6;
    else
        return false;
    if (strncmp(text, "client", 6) && strncmp(text, "server", 6))
        return false;
    in->sender = *text == 'c' ? MQTT_FROM_CLIENT : MQTT_FROM_SERVER;
    text += 6;
    if (!strncmp(text, " max=", 5))
        in->max_packet_size = (uint32_t)strtoul(text + 5, (char **)&text, 10);
    if (!strncmp(text, " unexpected", 11))
        in->unexpected = true, text += 11;
    *bytes = text + 1;
    return *text == ':';
}

static void run_case(const char *file, int line, const char *input_text, const char *expected,
                     struct chr_buf *rewritten)
{
    struct input in;
    const char *bytes_text;
    struct chr_buf bytes, out;
    chr_buf_init(&bytes, 1 << 22);
    chr_buf_init(&out, 1 << 20);
    cases_count++;
    const char *end =
        parse_input(input_text, &in, &bytes_text) ? text_to_bytes(bytes_text, &bytes) : NULL;
    if (!end || *end) {
        fail_case(file, line, "input is not understood:", input_text);
    } else {
        struct any_packet any;
        bool valid;
        chr_slice guarded = guard_copy(&guard, bytes.ptr, bytes.len);
        decode_text(&in, guarded, &out, &any, &valid);
        if (rewritten)
            chr_buf_add_slice(rewritten, chr_buf_slice(&out));
        else if (!chr_slice_eq(chr_buf_slice(&out), chr_slice_cstr(expected))) {
            chr_buf_add_u8(&out, 0);
            fail_case(file, line, "the decoder says:", (const char *)out.ptr);
            out.len--;
        }
        if (valid) {
            /* What follows the packet in the input is not part of it. */
            char *text = chr_slice_dup_cstr(chr_buf_slice(&out));
            char *then = strstr(text, "then ");
            if (then)
                *then = 0;
            round_trip(&in, &any, text, file, line);
            free(text);
        }
        write_seed(&in, chr_buf_slice(&bytes), file, line);
        if (!in.unexpected)
            cut(&in, chr_buf_slice(&bytes), file, line);
    }
    chr_buf_free(&bytes);
    chr_buf_free(&out);
}

static void run_file(const char *dir, const char *name)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    bool rewrite = getenv("CHR_REWRITE") != NULL;
    struct chr_buf input, expected, rewritten;
    chr_buf_init(&input, 1 << 20);
    chr_buf_init(&expected, 1 << 20);
    chr_buf_init(&rewritten, 1 << 22);
    char *text = NULL;
    size_t capacity = 0;
    int line = 0, case_line = 0;
    bool cited = false;
    for (;;) {
        ssize_t len = getline(&text, &capacity, f);
        bool end = len < 0;
        line++;
        bool blank = end || text[0] == '\n';
        if (blank && input.len) {
            chr_buf_add_u8(&input, 0);
            chr_buf_add_u8(&expected, 0);
            run_case(path, case_line, (const char *)input.ptr, (const char *)expected.ptr,
                     rewrite ? &rewritten : NULL);
            chr_buf_reset(&input);
            chr_buf_reset(&expected);
            cited = false;
        }
        if (end)
            break;
        if (blank || text[0] == '#') {
            /* "# MQTT-3.1.2-3: …": what docs/mqtt.md lists */
            cited = cited || (!blank && strchr(text, ':'));
            chr_buf_add_cstr(&rewritten, text);
        } else if (!input.len) {
            if (!cited)
                fail_case(path, line, "a case without the number of its rule", NULL);
            case_line = line;
            chr_buf_add(&input, text, strcspn(text, "\n"));
            chr_buf_add_cstr(&rewritten, text);
        } else if (text[0] == ' ' && !expected.len && !rewrite) {
            chr_buf_add(&input, text, strcspn(text, "\n"));
        } else if (text[0] == ' ' && rewrite && !expected.len) {
            chr_buf_add(&input, text, strcspn(text, "\n"));
            chr_buf_add_cstr(&rewritten, text);
        } else {
            chr_buf_add_cstr(&expected, text);
        }
    }
    fclose(f);
    free(text);
    if (rewrite) {
        assert_false(rewritten.failed);
        f = fopen(path, "w");
        assert_non_null(f);
        fwrite(rewritten.ptr, 1, rewritten.len, f);
        fclose(f);
    }
    chr_buf_free(&input);
    chr_buf_free(&expected);
    chr_buf_free(&rewritten);
}

static int is_text(const struct dirent *entry)
{
    size_t len = strlen(entry->d_name);
    return len > 4 && !strcmp(entry->d_name + len - 4, ".txt");
}

static void test_rule_files(void **state)
{
    (void)state;
    struct dirent **entries;
    int n = scandir(TEST_DIR "/mqtt", &entries, is_text, alphasort);
    assert_true(n > 0);
    for (int i = 0; i < n; i++) {
        run_file(TEST_DIR "/mqtt", entries[i]->d_name);
        free(entries[i]);
    }
    free(entries);
    printf("%u rule cases, %u failed\n", cases_count, failures_count);
    assert_true(cases_count >= 150);
    assert_int_equal(failures_count, 0);
}

static void test_every_fault_is_shown(void **state)
{
    (void)state;
    unsigned missing = 0;
    for (unsigned i = 0; i < MQTT_FAULTS_COUNT; i++) {
        for (unsigned v5 = 0; v5 < 2; v5++) {
            const char *rule = v5 ? mqtt__faults[i].rule5 : mqtt__faults[i].rule311;
            if (rule && !seen[i][v5]) {
                fprintf(stderr, "no case shows %s (%s): %s\n", rule, v5 ? "5.0" : "3.1.1",
                        mqtt__faults[i].text);
                missing++;
            }
        }
    }
    assert_int_equal(missing, 0);
}

int main(void)
{
    guard = guard_open(1 << 20);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rule_files),
        cmocka_unit_test(test_every_fault_is_shown),
    };
    int failed = cmocka_run_group_tests_name("mqtt rules", tests, NULL, NULL);
    guard_close(&guard);
    return failed;
}
