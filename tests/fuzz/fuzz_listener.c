/* What comes before MQTT: a PROXY header, a WebSocket upgrade, frames. The first byte chooses. Each
 * is fed whole and in pieces, which must come to the same. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "broker/net/proxy_header.h"
#include "broker/net/websocket.h"

static void proxy(const uint8_t *bytes, size_t n)
{
    /* As the transport reads: never more than is said to be missing. */
    struct proxy_header header;
    size_t have = 0;
    for (;;) {
        uint8_t *copy = malloc(have ? have : 1); /* the sanitizer watches its end */
        memcpy(copy, bytes, have);
        int used = proxy_header_parse(chr_slice_of(copy, have), &header);
        free(copy);
        if (used < 0) {
            CHR_ASSERT(header.why);
            return;
        }
        if (used > 0) {
            CHR_ASSERT((size_t)used == have);
            CHR_ASSERT(have <= PROXY_HEADER_BYTES_MAX);
            return;
        }
        CHR_ASSERT(header.missing > 0);
        if (have + header.missing > n)
            return;
        have += header.missing;
    }
}

static void upgrade(const uint8_t *bytes, size_t n)
{
    struct websocket_upgrade out;
    int whole = websocket_upgrade(chr_slice_of(bytes, n), 4096, NULL, &out);
    CHR_ASSERT(whole <= (int)n);
    CHR_ASSERT((whole < 0) == (out.why != NULL));
    /* A request that is accepted is not accepted before its end. */
    for (size_t i = 0; whole > 0 && i < (size_t)whole; i++)
        CHR_ASSERT(websocket_upgrade(chr_slice_of(bytes, i), 4096, NULL, &out) == 0);
}

struct decoded {
    uint8_t *data;
    size_t len;
    chr_err err;
    struct chr_buf reply;
};

static void decode(const uint8_t *bytes, size_t n, size_t step, struct decoded *out)
{
    struct websocket ws = {0};
    out->data = malloc(n ? n : 1);
    out->len = 0;
    out->err = CHR_OK;
    chr_buf_init(&out->reply, 1 << 20);
    for (size_t at = 0; at < n && !out->err; at += step) {
        size_t len = n - at < step ? n - at : step, data = 0;
        uint8_t *piece = malloc(len);
        const char *why = NULL;
        memcpy(piece, bytes + at, len);
        out->err = websocket_decode(&ws, piece, len, &data, &out->reply, &why);
        CHR_ASSERT(data <= len);
        CHR_ASSERT(!out->err || why);
        memcpy(out->data + out->len, piece, data);
        out->len += data;
        free(piece);
    }
    CHR_ASSERT(out->reply.len < WEBSOCKET_REPLY_BYTES_MAX + 256);
}

static void frames(const uint8_t *bytes, size_t n)
{
    struct decoded whole, pieces;
    decode(bytes, n, n ? n : 1, &whole);
    for (size_t step = 1; step <= 7; step += 3) {
        decode(bytes, n, step, &pieces);
        CHR_ASSERT(pieces.err == whole.err && pieces.len == whole.len);
        CHR_ASSERT(!whole.len || memcmp(pieces.data, whole.data, whole.len) == 0);
        CHR_ASSERT(pieces.reply.len == whole.reply.len);
        CHR_ASSERT(!whole.reply.len || !memcmp(pieces.reply.ptr, whole.reply.ptr, whole.reply.len));
        free(pieces.data);
        chr_buf_free(&pieces.reply);
    }
    free(whole.data);
    chr_buf_free(&whole.reply);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    switch (data[0] % 3) {
    case 0:
        proxy(data + 1, size - 1);
        break;
    case 1:
        upgrade(data + 1, size - 1);
        break;
    default:
        frames(data + 1, size - 1);
    }
    return 0;
}
