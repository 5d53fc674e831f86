/* broker/net/websocket.h: MQTT over WebSocket (MQTT section 6, RFC 6455): the upgrade and the
 * frames.
 *
 * Frames are taken apart in place, in the buffer they were received into, as they come: a
 * connection keeps a header and at most one control frame (125 bytes), whatever is sent to it.
 * (wslay's context has 4 KiB of buffer inside, more than all the rest of an idle connection; it is
 * the twin in the tests.) Pure: bytes in, bytes out; the loop's thread. */
#ifndef CHR_BROKER_NET_WEBSOCKET_H
#define CHR_BROKER_NET_WEBSOCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

/* ---- Upgrade (RFC 6455 section 4.2) -----------------------------------------------------------
 */

struct websocket_upgrade {
    char response[512]; /* to send: 101, or the refusal, after which the connection is closed */
    const char *why;    /* it was refused */
};

/* in: what was received so far. bytes_max: of a request. origin: the only one taken; "*": any, and
 * none; NULL: none, or that of a page that came from the address that is asked (a number or
 * "localhost", so that no name can be made to point here).
 * Above 0: length of the request, accepted. 0: more is needed. Below: CHR_EPROTO, refused. */
int websocket_upgrade(chr_slice in, size_t bytes_max, const char *origin,
                      struct websocket_upgrade *out);

/* ---- Frames (RFC 6455 section 5) --------------------------------------------------------------
 */

enum websocket_close { /* RFC 6455 section 7.4.1 */
                       WEBSOCKET_NORMAL = 1000,
                       WEBSOCKET_PROTOCOL_ERROR = 1002,
                       WEBSOCKET_UNSUPPORTED_DATA = 1003,
                       WEBSOCKET_INVALID_PAYLOAD = 1007,
                       WEBSOCKET_TOO_BIG = 1009,
};

/* A frame's payload above this is refused: more than the largest MQTT packet. */
#define WEBSOCKET_FRAME_BYTES_MAX (UINT64_C(256) << 20)
/* What answers to pings may gather unsent; further pings get none (5.5.3 allows that). */
#define WEBSOCKET_REPLY_BYTES_MAX 1024
/* Of a frame that a server sends. */
#define WEBSOCKET_HEADER_BYTES_MAX 10

struct websocket {
    uint64_t payload_left; /* of the frame being received */
    uint8_t header[14];
    uint8_t header_len;
    uint8_t mask[4];
    uint8_t mask_at;     /* of the next byte */
    uint8_t opcode;      /* of the frame being received */
    bool fin;            /* it is the last of its message */
    bool in_frame;       /* its header is complete */
    bool in_message;     /* a binary message has begun and not ended */
    bool close_received; /* what follows is not looked at */
    bool close_sent;
    uint8_t control_len;
    uint8_t control[125]; /* payload of the control frame being received */
};

/* Takes bytes[0, n) apart in place: bytes[0, *data) is application data then. Answers (pongs, a
 * close) are added to `reply` as whole frames. CHR_EPROTO: a close frame that says why is in
 * `reply`; *why is a sentence; the data before it is good. CHR_ENOMEM. */
CHR_MUST_USE chr_err websocket_decode(struct websocket *ws, uint8_t *bytes, size_t n, size_t *data,
                                      struct chr_buf *reply, const char **why);
/* Header of a binary frame that is a whole message; returns its length. */
size_t websocket_header(uint8_t out[WEBSOCKET_HEADER_BYTES_MAX], size_t payload);
/* Adds a close frame, once. */
void websocket_close(struct websocket *ws, enum websocket_close code, struct chr_buf *reply);

#endif
