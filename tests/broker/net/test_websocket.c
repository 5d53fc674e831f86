/* The WebSocket reader beside wslay, frame by frame and byte by byte; PROXY headers at their edges.
 */
#include "../../base/check.h"

#include <stdlib.h>
#include <wslay/wslay.h>

#include "base/random.h"
#include "broker/net/proxy_header.h"
#include "broker/net/websocket.h"

/* ---- wslay as the other end -------------------------------------------------------------------
 */

struct tape {
    const uint8_t *bytes;
    size_t len, at;
    struct chr_buf out;
};

static ssize_t tape_read(uint8_t *buf, size_t len, int flags, void *user)
{
    struct tape *t = user;
    (void)flags;
    size_t n = t->len - t->at < len ? t->len - t->at : len;
    if (!n)
        return -1;
    memcpy(buf, t->bytes + t->at, n);
    t->at += n;
    return (ssize_t)n;
}

static ssize_t tape_write(const uint8_t *data, size_t len, int flags, void *user)
{
    (void)flags;
    chr_buf_add(&((struct tape *)user)->out, data, len);
    return (ssize_t)len;
}

static int tape_mask(uint8_t *buf, size_t len, void *user)
{
    (void)user;
    for (size_t i = 0; i < len; i++)
        buf[i] = (uint8_t)(0x5a + 37 * i);
    return 0;
}

static struct wslay_frame_callbacks tape_callbacks = {tape_write, tape_read, tape_mask};

static void client_frame(struct tape *t, uint8_t opcode, bool fin, const uint8_t *data, size_t len)
{
    wslay_frame_context_ptr ctx;
    assert_int_equal(wslay_frame_context_init(&ctx, &tape_callbacks, t), 0);
    struct wslay_frame_iocb io = {.fin = fin,
                                  .opcode = opcode,
                                  .payload_length = len,
                                  .mask = 1,
                                  .data = data,
                                  .data_length = len};
    size_t sent = 0;
    do {
        io.data = data + sent;
        io.data_length = len - sent;
        ssize_t n = wslay_frame_send(ctx, &io);
        assert_true(n >= 0);
        sent += (size_t)n;
    } while (sent < len);
    wslay_frame_context_free(ctx);
}

/* Random messages in random fragments with pings between, by wslay; read in pieces of any size. */
static void frames_of_wslay(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 300; round++) {
        srand(round);
        struct tape t = {0};
        struct chr_buf expected, reply, pongs;
        chr_buf_init(&t.out, 8u << 20);
        chr_buf_init(&expected, 8u << 20);
        chr_buf_init(&reply, 1u << 20);
        chr_buf_init(&pongs, 1u << 20);
        static const size_t sizes[] = {0, 1, 125, 126, 127, 1000, 65535, 65536, 70000};
        static uint8_t payload[70000];
        unsigned pings = 0;
        for (int m = 0; m < 6; m++) {
            int fragments = 1 + rand() % 3;
            for (int f = 0; f < fragments; f++) {
                size_t len = sizes[(size_t)rand() % CHR_COUNT_OF(sizes)];
                for (size_t i = 0; i < len; i++)
                    payload[i] = (uint8_t)rand();
                client_frame(&t, f ? 0 : 2, f == fragments - 1, payload, len);
                chr_buf_add(&expected, payload, len);
                if (rand() % 2 && pings < 4) {
                    pings++;
                    client_frame(&t, 9, true, payload, len % 126);
                    chr_buf_add_u8(&pongs, 0x8a);
                    chr_buf_add_u8(&pongs, (uint8_t)(len % 126));
                    chr_buf_add(&pongs, payload, len % 126);
                }
            }
        }
        struct websocket ws = {0};
        size_t got = 0, at = 0;
        while (at < t.out.len) {
            size_t want = rand() % 3 ? (size_t)(1 + rand() % 40) : (size_t)(1 + rand() % 50000);
            size_t n = t.out.len - at < want ? t.out.len - at : want, data = 0;
            uint8_t *piece = malloc(n);
            const char *why = NULL;
            memcpy(piece, t.out.ptr + at, n);
            assert_int_equal(websocket_decode(&ws, piece, n, &data, &reply, &why), CHR_OK);
            assert_true(got + data <= expected.len);
            assert_memory_equal(piece, expected.ptr + got, data);
            got += data;
            at += n;
            free(piece);
        }
        assert_int_equal(got, expected.len);
        assert_int_equal(reply.len, pongs.len);
        if (pongs.len)
            assert_memory_equal(reply.ptr, pongs.ptr, pongs.len);
        chr_buf_free(&t.out);
        chr_buf_free(&expected);
        chr_buf_free(&reply);
        chr_buf_free(&pongs);
    }
}

/* What we send, wslay reads. */
static void headers_for_wslay(void **state)
{
    (void)state;
    static const size_t sizes[] = {1, 125, 126, 127, 65535, 65536, 100000};
    static uint8_t bytes[100000 + WEBSOCKET_HEADER_BYTES_MAX];
    for (size_t i = 0; i < CHR_COUNT_OF(sizes); i++) {
        size_t head = websocket_header(bytes, sizes[i]), got = 0;
        struct tape t = {.bytes = bytes, .len = head + sizes[i]};
        wslay_frame_context_ptr ctx;
        assert_int_equal(wslay_frame_context_init(&ctx, &tape_callbacks, &t), 0);
        while (got < sizes[i]) {
            struct wslay_frame_iocb io;
            ssize_t n = wslay_frame_recv(ctx, &io);
            assert_true(n > 0);
            assert_int_equal(io.payload_length, sizes[i]);
            assert_int_equal(io.opcode, 2);
            assert_int_equal(io.fin, 1);
            assert_int_equal(io.mask, 0);
            got += (size_t)n;
        }
        wslay_frame_context_free(ctx);
    }
}

static void pings_without_end(void **state)
{
    (void)state;
    struct websocket ws = {0};
    struct chr_buf reply;
    chr_buf_init(&reply, 4096);
    for (int i = 0; i < 10000; i++) {
        uint8_t ping[6 + 125] = {0x89, 0x80 | 125};
        size_t data;
        const char *why;
        assert_int_equal(websocket_decode(&ws, ping, sizeof ping, &data, &reply, &why), CHR_OK);
    }
    assert_true(reply.len <= WEBSOCKET_REPLY_BYTES_MAX + 127);
    chr_buf_free(&reply);
}

/* ---- PROXY ------------------------------------------------------------------------------------
 */

static int parse(const void *bytes, size_t n, struct proxy_header *out)
{
    uint8_t *copy = malloc(n ? n : 1);
    memcpy(copy, bytes, n);
    int used = proxy_header_parse(chr_slice_of(copy, n), out);
    free(copy);
    return used;
}

/* Read as the transport does, never beyond the header, whatever follows it. */
static void never_beyond(void **state)
{
    (void)state;
    static const char *const lines[] = {
        "PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n",
        "PROXY TCP4 192.0.2.17 192.0.2.1 65535 0\r\n",
        "PROXY TCP6 ::1 ::2 1 2\r\n",
        ("PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
         "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n"),
        "PROXY UNKNOWN\r\n",
        "PROXY UNKNOWN a b c d\r\n",
    };
    for (size_t i = 0; i < CHR_COUNT_OF(lines); i++) {
        struct proxy_header header;
        size_t len = strlen(lines[i]), have = 0;
        int used;
        while ((used = parse(lines[i], have, &header)) == 0) {
            assert_true(header.missing > 0);
            have += header.missing;
            assert_true(have <= len);
        }
        assert_int_equal(used, (int)len);
        /* Byte by byte it is the same. */
        for (size_t n = 0; n < len; n++)
            assert_int_equal(parse(lines[i], n, &header), 0);
    }
}

static void addresses(void **state)
{
    (void)state;
    struct proxy_header header;
    const char *line = "PROXY TCP6 2001:db8::9 2001:db8::1 49154 1883\r\n";
    assert_int_equal(parse(line, strlen(line), &header), (int)strlen(line));
    assert_true(header.known);
    assert_string_equal(header.address, "[2001:db8::9]:49154");
    /* Version 2 with the checksum of HAProxy's "proxy-v2-options crc32c". */
    uint8_t v2[16 + 12 + 7] = {0x0d, 0x0a, 0x0d, 0x0a, 0,  0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54,
                               0x0a, 0x21, 0x11, 0,    19, 192,  0,    2,    7,    192,  0,
                               2,    1,    0xc0, 1,    7,  0x5b, 3,    0,    4};
    uint32_t crc = 0xffffffff; /* a plain one, bit by bit */
    for (size_t i = 0; i < sizeof v2; i++) {
        crc ^= v2[i];
        for (int bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ (crc & 1 ? 0x82f63b78u : 0);
    }
    crc = ~crc;
    for (int i = 0; i < 4; i++)
        v2[31 + i] = (uint8_t)(crc >> (24 - 8 * i));
    assert_int_equal(parse(v2, sizeof v2, &header), (int)sizeof v2);
    assert_string_equal(header.address, "192.0.2.7:49153");
    v2[19] ^= 1;
    assert_int_equal(parse(v2, sizeof v2, &header), CHR_EMALFORMED);
}

static void refused(void **state)
{
    (void)state;
    static const char *const lines[] = {
        "PROXY TCP4 1.1.1.1 2.2.2.2 1 2\n",
        "PROXY TCP4 1.1.1.1 2.2.2.2 1 2 \r\n",
        "PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n",
        "PROXY TCP4  1.1.1.1 2.2.2.2 1 2\r\n",
        "PROXY TCP4 1.1.1.1 2.2.2.2 01 2\r\n",
        "PROXY TCP4 1.1.1.1 2.2.2.2 65536 2\r\n",
        "PROXY TCP4 ::1 ::2 1 2\r\n",
        "PROXY TCP6 1.1.1.1 2.2.2.2 1 2\r\n",
        "PROXY tcp4 1.1.1.1 2.2.2.2 1 2\r\n",
        "PROXY\tTCP4 1.1.1.1 2.2.2.2 1 2\r\n",
        "HELLO",
    };
    for (size_t i = 0; i < CHR_COUNT_OF(lines); i++) {
        struct proxy_header header;
        assert_int_equal(parse(lines[i], strlen(lines[i]), &header), CHR_EMALFORMED);
        assert_non_null(header.why);
    }
}

static void pages(void **state)
{
    (void)state;
    static const struct {
        const char *host, *origin; /* header lines; "": none */
        const char *wanted;
        bool taken;
    } cases[] = {
        {"farm", "", NULL, true},
        {"127.0.0.1:8083", "Origin: http://127.0.0.1:3000\r\n", NULL, true},
        {"127.0.0.1", "Origin: http://127.0.0.1\r\n", NULL, true},
        {"[::1]:8083", "Origin: http://[::1]\r\n", NULL, true},
        {"localhost:8083", "Origin: http://LocalHost:1\r\n", NULL, true},
        {"127.0.0.1:8083", "Origin: https://evil.example\r\n", NULL, false},
        {"127.0.0.1:8083", "Origin: http://127.0.0.1.evil.example\r\n", NULL, false},
        {"127.0.0.1:8083", "Origin: http://localhost\r\n", NULL, false},
        {"127.0.0.1:8083", "Origin: null\r\n", NULL, false},
        {"127.0.0.1:8083", "Origin:\r\n", NULL, false},
        /* A name that somebody's name server points here. */
        {"evil.example:8083", "Origin: http://evil.example\r\n", NULL, false},
        {"[evil]:8083", "Origin: http://[evil]\r\n", NULL, false},
        {"", "Origin: http://\r\n", NULL, false},
        {"127.0.0.1", "Origin: http://127.0.0.1\r\nOrigin: http://evil.example\r\n", NULL, false},
        {"farm", "Origin: https://any.example\r\n", "*", true},
        {"farm", "", "*", true},
        {"farm", "Origin: https://farm.example\r\n", "https://farm.example", true},
        {"farm", "Origin: https://evil.example\r\n", "https://farm.example", false},
        {"farm", "", "https://farm.example", false},
        {"127.0.0.1", "Origin: http://127.0.0.1\r\n", "https://farm.example", false},
    };
    for (size_t i = 0; i < CHR_COUNT_OF(cases); i++) {
        char request[1024];
        int n = snprintf(request, sizeof request,
                         "GET / HTTP/1.1\r\nHost: %s\r\n%sUpgrade: websocket\r\n"
                         "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                         "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                         "Sec-WebSocket-Protocol: mqtt\r\n\r\n",
                         cases[i].host, cases[i].origin);
        struct websocket_upgrade out;
        int used = websocket_upgrade(chr_slice_of(request, (size_t)n), 4096, cases[i].wanted, &out);
        if (cases[i].taken ? used != n : used >= 0 || strncmp(out.response, "HTTP/1.1 403 ", 13))
            fail_msg("Host %s, %s: %s", cases[i].host, cases[i].origin, out.response);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_of_wslay),
        cmocka_unit_test(headers_for_wslay),
        cmocka_unit_test(pings_without_end),
        cmocka_unit_test(never_beyond),
        cmocka_unit_test(addresses),
        cmocka_unit_test(refused),
        cmocka_unit_test(pages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
