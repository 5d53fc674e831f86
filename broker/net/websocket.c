#include "broker/net/websocket.h"

#include <string.h>

#include "base/bytes.h"
#include "base/utf8.h"

enum { CONTINUATION = 0, TEXT = 1, BINARY = 2, CLOSE = 8, PING = 9, PONG = 10 };

#define FIN       0x80u
#define MASKED    0x80u
#define CONTROL   0x08u
#define RESERVED  0x70u
#define LENGTH_16 126u
#define LENGTH_64 127u

/* ---- Sending ----------------------------------------------------------------------------------
 */

size_t websocket_header(uint8_t out[WEBSOCKET_HEADER_BYTES_MAX], size_t payload)
{
    out[0] = FIN | BINARY;
    if (payload < LENGTH_16) {
        out[1] = (uint8_t)payload;
        return 2;
    }
    if (payload <= UINT16_MAX) {
        out[1] = LENGTH_16;
        chr_put_u16be(out + 2, (uint16_t)payload);
        return 4;
    }
    out[1] = LENGTH_64;
    chr_put_u64be(out + 2, payload);
    return 10;
}

static void add_control(struct chr_buf *reply, uint8_t opcode, const uint8_t *payload, size_t len)
{
    chr_buf_add_u8(reply, (uint8_t)(FIN | opcode));
    chr_buf_add_u8(reply, (uint8_t)len);
    chr_buf_add(reply, payload, len);
}

void websocket_close(struct websocket *ws, enum websocket_close code, struct chr_buf *reply)
{
    if (ws->close_sent)
        return;
    uint8_t payload[2];
    chr_put_u16be(payload, (uint16_t)code);
    add_control(reply, CLOSE, payload, sizeof payload);
    ws->close_sent = true;
}

/* ---- Receiving --------------------------------------------------------------------------------
 */

struct fault {
    enum websocket_close code;
    const char *why;
};

/* Bytes of the header whose first two are known. */
static size_t header_bytes(const uint8_t *h)
{
    unsigned length = h[1] & 127u;
    return 2 +
           (length == LENGTH_16   ? 2u
            : length == LENGTH_64 ? 8u
                                  : 0u) +
           (h[1] & MASKED ? 4u : 0u);
}

/* What is wrong shows in the first two bytes: a length is not waited for then. */
static struct fault check_first(const struct websocket *ws, const uint8_t *h)
{
    uint8_t opcode = h[0] & 15u;
    if (h[0] & RESERVED)
        return (struct fault){WEBSOCKET_PROTOCOL_ERROR, "reserved bits of a frame are set"};
    if (opcode == TEXT)
        return (struct fault){WEBSOCKET_UNSUPPORTED_DATA, "a text frame"}; /* [MQTT-6.0.0-1] */
    if ((opcode > BINARY && opcode < CLOSE) || opcode > PONG)
        return (struct fault){WEBSOCKET_PROTOCOL_ERROR, "a frame of an unknown kind"};
    if (!(h[1] & MASKED))
        return (struct fault){WEBSOCKET_PROTOCOL_ERROR, "a frame of a client is not masked"};
    if ((opcode & CONTROL) && !(h[0] & FIN))
        return (struct fault){WEBSOCKET_PROTOCOL_ERROR, "a control frame in fragments"};
    if ((opcode & CONTROL) && (h[1] & 127u) >= LENGTH_16)
        return (struct fault){WEBSOCKET_PROTOCOL_ERROR, "a control frame above 125 bytes"};
    if (opcode == CONTINUATION && !ws->in_message)
        return (struct fault){WEBSOCKET_PROTOCOL_ERROR, "a continuation of nothing"};
    if (opcode == BINARY && ws->in_message)
        return (struct fault){WEBSOCKET_PROTOCOL_ERROR, "a message within another"};
    return (struct fault){0, NULL};
}

static struct fault begin_frame(struct websocket *ws)
{
    const uint8_t *h = ws->header;
    uint64_t length = h[1] & 127u;
    const uint8_t *at = h + 2;
    if (length == LENGTH_16) {
        length = chr_get_u16be(at);
        at += 2;
        if (length < LENGTH_16)
            return (struct fault){WEBSOCKET_PROTOCOL_ERROR, "a length in more bytes than it needs"};
    } else if (length == LENGTH_64) {
        length = chr_get_u64be(at);
        at += 8;
        if (length <= UINT16_MAX || length >> 63)
            return (struct fault){WEBSOCKET_PROTOCOL_ERROR, "a length in more bytes than it needs"};
        if (length > WEBSOCKET_FRAME_BYTES_MAX)
            return (struct fault){WEBSOCKET_TOO_BIG, "a frame above 256 MiB"};
    }
    memcpy(ws->mask, at, 4);
    ws->mask_at = 0;
    ws->payload_left = length;
    ws->opcode = h[0] & 15u;
    ws->fin = (h[0] & FIN) != 0;
    ws->header_len = 0;
    ws->control_len = 0;
    ws->in_frame = true;
    return (struct fault){0, NULL};
}

/* Adds received bytes to the header; true when it is complete. */
static bool gather_header(struct websocket *ws, const uint8_t **at, const uint8_t *end,
                          struct fault *fault)
{
    while (*at < end) {
        ws->header[ws->header_len++] = *(*at)++;
        if (ws->header_len < 2)
            continue;
        if (ws->header_len == 2) {
            *fault = check_first(ws, ws->header);
            if (fault->why)
                return false;
        }
        if (ws->header_len == header_bytes(ws->header)) {
            *fault = begin_frame(ws);
            return !fault->why;
        }
    }
    return false;
}

/* Eight bytes at a time; to and from may overlap, to is not behind from. */
static void unmask(struct websocket *ws, uint8_t *to, const uint8_t *from, size_t n)
{
    uint8_t turned[8];
    for (size_t i = 0; i < 8; i++)
        turned[i] = ws->mask[(ws->mask_at + i) & 3u];
    uint64_t mask, word;
    memcpy(&mask, turned, 8);
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        memcpy(&word, from + i, 8);
        word ^= mask;
        memcpy(to + i, &word, 8);
    }
    for (; i < n; i++)
        to[i] = from[i] ^ turned[i & 7u];
    ws->mask_at = (uint8_t)((ws->mask_at + n) & 3u);
}

static bool close_code_valid(uint16_t code)
{
    return (code >= 1000 && code <= 1014 && code != 1004 && code != 1005 && code != 1006) ||
           (code >= 3000 && code <= 4999);
}

static struct fault handle_close(struct websocket *ws, struct chr_buf *reply)
{
    ws->close_received = true;
    if (ws->control_len == 1)
        return (struct fault){WEBSOCKET_PROTOCOL_ERROR, "a close frame with half a code"};
    if (ws->control_len == 0) {
        if (!ws->close_sent)
            add_control(reply, CLOSE, NULL, 0);
        ws->close_sent = true;
        return (struct fault){0, NULL};
    }
    uint16_t code = chr_get_u16be(ws->control);
    if (!close_code_valid(code))
        return (struct fault){WEBSOCKET_PROTOCOL_ERROR,
                              "a close frame with a code that may not be sent"};
    if (!chr_utf8_valid(chr_slice_of(ws->control + 2, ws->control_len - 2u)))
        return (struct fault){WEBSOCKET_INVALID_PAYLOAD, "a close frame whose reason is not UTF-8"};
    if (!ws->close_sent)
        add_control(reply, CLOSE, ws->control, 2);
    ws->close_sent = true;
    return (struct fault){0, NULL};
}

static struct fault end_frame(struct websocket *ws, struct chr_buf *reply)
{
    ws->in_frame = false;
    switch (ws->opcode) {
    case CLOSE:
        return handle_close(ws, reply);
    case PING:
        if (!ws->close_sent && reply->len < WEBSOCKET_REPLY_BYTES_MAX)
            add_control(reply, PONG, ws->control, ws->control_len);
        break;
    case PONG:
        break;
    default:
        ws->in_message = !ws->fin;
    }
    return (struct fault){0, NULL};
}

chr_err websocket_decode(struct websocket *ws, uint8_t *bytes, size_t n, size_t *data,
                         struct chr_buf *reply, const char **why)
{
    const uint8_t *at = bytes, *end = bytes + n;
    struct fault fault = {0, NULL};
    *data = 0;
    while (!fault.why && !ws->close_received && at < end) {
        if (!ws->in_frame) {
            if (!gather_header(ws, &at, end, &fault))
                break;
        }
        size_t left = (size_t)(end - at);
        size_t take = ws->payload_left < left ? (size_t)ws->payload_left : left;
        if (ws->opcode & CONTROL) {
            unmask(ws, ws->control + ws->control_len, at, take);
            ws->control_len = (uint8_t)(ws->control_len + take);
        } else {
            unmask(ws, bytes + *data, at, take);
            *data += take;
        }
        at += take;
        ws->payload_left -= take;
        if (!ws->payload_left)
            fault = end_frame(ws, reply);
    }
    if (fault.why) {
        *why = fault.why;
        websocket_close(ws, fault.code, reply);
        ws->close_received = true; /* nothing after it is looked at */
        return CHR_EPROTO;
    }
    return reply->failed ? CHR_ENOMEM : CHR_OK;
}
