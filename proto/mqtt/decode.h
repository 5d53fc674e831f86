/* proto/mqtt/decode.h: from bytes to packets, strictly.
 *
 *     struct mqtt_frame frame;
 *     int used = mqtt_frame(received, max_packet_size, &frame);
 *     if (used > 0 && frame.type == MQTT_PUBLISH)
 *         err = mqtt_decode_publish(&frame, version, &publish, &fault);
 *
 * Decoders read in place: every slice in a result points into the received bytes and is good until
 * those move. They touch no byte outside the frame, allocate nothing and keep no state, so they may
 * run on any thread.
 *
 * A packet that decodes without error keeps every rule of the standard that can be judged from the
 * packet alone. What is refused is refused with the number of the broken rule, as the standard of
 * that version numbers it ("MQTT-3.3.1-4"); rules the standard states without numbering them are
 * named by section ("3.3.2.1"). docs/mqtt.md lists them all with the test that shows each.
 *
 * Errors of all decoders: CHR_EMALFORMED when the bytes cannot be taken apart (reason 0x81),
 * CHR_EPROTO for anything else (0x82 and the closer codes). `fault` is filled then, untouched
 * otherwise. The result is then undefined, but for struct mqtt_connect's version. */
#ifndef CHR_PROTO_MQTT_DECODE_H
#define CHR_PROTO_MQTT_DECODE_H

#include "base/err.h"
#include "proto/mqtt/packet.h"

/* Why a packet was refused. All pointers are to static text. */
struct mqtt_fault {
    uint8_t reason_code; /* enum mqtt_reason: for CONNACK or DISCONNECT in 5.0, for
                          * mqtt_connack_return_code() in 3.1.1; 3.1.1 otherwise just closes */
    const char *rule;    /* "MQTT-3.3.1-4", or a section: "3.3.2.1" */
    const char *text;    /* what is wrong, for logs and Reason Strings */
};

/* One whole packet, its header taken apart and its body not looked at. */
struct mqtt_frame {
    uint8_t type;            /* enum mqtt_packet_type; 1 to 15 */
    uint8_t flags;           /* the low four bits of the first byte */
    enum mqtt_sender sender; /* which side's rules apply */
    uint32_t packet_bytes;   /* header and body */
    chr_slice body;          /* what Remaining Length counts */
};

/* Finds the packet that starts at in.ptr[0].
 *   max_packet_size  bytes, header included; 0: what the format allows
 * Above 0: its length in bytes, *out is filled. 0: more bytes are needed (out->packet_bytes says
 * how many in all, or is 0 while the header itself is incomplete).
 * CHR_EMALFORMED: packet type 0, or a Remaining Length that does not end or is not in its shortest
 * form [MQTT-1.5.5-1]. CHR_ETOOBIG: longer than max_packet_size, known from the header before the
 * body is here; out->type and out->packet_bytes are filled. */
int mqtt_frame(chr_slice in, uint32_t max_packet_size, struct mqtt_frame *out);
/* The same for a client, which reads what a server sent. */
int mqtt_frame_from_server(chr_slice in, uint32_t max_packet_size, struct mqtt_frame *out);

/* The fault behind an error of mqtt_frame(), from the same bytes. */
void mqtt_frame_fault(chr_slice in, chr_err err, enum mqtt_version version,
                      struct mqtt_fault *fault);

/* Each expects a frame of its type (the caller's switch has looked). */
CHR_MUST_USE chr_err mqtt_decode_connect(const struct mqtt_frame *frame,
                                         struct mqtt_connect *connect, struct mqtt_fault *fault);
CHR_MUST_USE chr_err mqtt_decode_connack(const struct mqtt_frame *frame, enum mqtt_version version,
                                         struct mqtt_connack *connack, struct mqtt_fault *fault);
CHR_MUST_USE chr_err mqtt_decode_publish(const struct mqtt_frame *frame, enum mqtt_version version,
                                         struct mqtt_publish *publish, struct mqtt_fault *fault);
/* PUBACK, PUBREC, PUBREL, PUBCOMP */
CHR_MUST_USE chr_err mqtt_decode_ack(const struct mqtt_frame *frame, enum mqtt_version version,
                                     struct mqtt_ack *ack, struct mqtt_fault *fault);
CHR_MUST_USE chr_err mqtt_decode_subscribe(const struct mqtt_frame *frame,
                                           enum mqtt_version version,
                                           struct mqtt_subscribe *subscribe,
                                           struct mqtt_fault *fault);
CHR_MUST_USE chr_err mqtt_decode_suback(const struct mqtt_frame *frame, enum mqtt_version version,
                                        struct mqtt_suback *suback, struct mqtt_fault *fault);
CHR_MUST_USE chr_err mqtt_decode_unsubscribe(const struct mqtt_frame *frame,
                                             enum mqtt_version version,
                                             struct mqtt_unsubscribe *unsubscribe,
                                             struct mqtt_fault *fault);
CHR_MUST_USE chr_err mqtt_decode_unsuback(const struct mqtt_frame *frame, enum mqtt_version version,
                                          struct mqtt_unsuback *unsuback, struct mqtt_fault *fault);
/* PINGREQ, PINGRESP: nothing to read, but their emptiness is checked. */
CHR_MUST_USE chr_err mqtt_decode_ping(const struct mqtt_frame *frame, enum mqtt_version version,
                                      struct mqtt_fault *fault);
CHR_MUST_USE chr_err mqtt_decode_disconnect(const struct mqtt_frame *frame,
                                            enum mqtt_version version,
                                            struct mqtt_disconnect *disconnect,
                                            struct mqtt_fault *fault);
/* 5.0 only; in 3.1.1 packet type 15 is reserved, and this says so. */
CHR_MUST_USE chr_err mqtt_decode_auth(const struct mqtt_frame *frame, enum mqtt_version version,
                                      struct mqtt_auth *auth, struct mqtt_fault *fault);
/* Fills the fault for a packet whose type the sender may not send at all (a client's CONNACK, a
 * second CONNECT, AUTH without enhanced authentication) and returns its error. */
chr_err mqtt_unexpected_packet(const struct mqtt_frame *frame, enum mqtt_version version,
                               struct mqtt_fault *fault);

#endif
