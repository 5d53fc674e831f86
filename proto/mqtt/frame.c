/* proto/mqtt/frame.c: where a packet ends. */
#include "proto/mqtt/read.h"

static int find(chr_slice in, uint32_t max_packet_size, enum mqtt_sender sender,
                struct mqtt_frame *out)
{
    out->packet_bytes = 0;
    if (in.len < 2)
        return in.len == 1 && in.ptr[0] < 0x10 ? CHR_EMALFORMED : 0;
    uint32_t remaining = 0;
    int used = mqtt__get_varint(in.ptr + 1, in.len - 1, &remaining);
    if (CHR_UNLIKELY(in.ptr[0] < 0x10)) /* type 0 is reserved */
        return CHR_EMALFORMED;
    if (CHR_UNLIKELY(used <= 0))
        return used == MQTT__VARINT_SHORT ? 0 : CHR_EMALFORMED;

    uint32_t header_bytes = 1 + (uint32_t)used;
    out->type = in.ptr[0] >> 4;
    out->flags = in.ptr[0] & 0x0f;
    out->sender = sender;
    out->packet_bytes = header_bytes + remaining;
    if (CHR_UNLIKELY(max_packet_size && out->packet_bytes > max_packet_size))
        return CHR_ETOOBIG;
    if (in.len < out->packet_bytes)
        return 0;
    out->body = chr_slice_of(in.ptr + header_bytes, remaining);
    return (int)out->packet_bytes;
}

int mqtt_frame(chr_slice in, uint32_t max_packet_size, struct mqtt_frame *out)
{
    return find(in, max_packet_size, MQTT_FROM_CLIENT, out);
}

int mqtt_frame_from_server(chr_slice in, uint32_t max_packet_size, struct mqtt_frame *out)
{
    return find(in, max_packet_size, MQTT_FROM_SERVER, out);
}

void mqtt_frame_fault(chr_slice in, chr_err err, enum mqtt_version version,
                      struct mqtt_fault *fault)
{
    uint32_t remaining;
    enum mqtt__fault_id id = MQTT_FAULT_TYPE_RESERVED;
    if (err == CHR_ETOOBIG)
        id = MQTT_FAULT_TOO_LARGE;
    else if (in.len > 1 && in.ptr[0] >= 0x10)
        id = mqtt__get_varint(in.ptr + 1, in.len - 1, &remaining) == MQTT__VARINT_OVERLONG
                 ? MQTT_FAULT_LENGTH_OVERLONG
                 : MQTT_FAULT_LENGTH_ENDLESS;
    mqtt__fail(fault, version, id);
}
