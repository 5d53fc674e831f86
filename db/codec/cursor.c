/* db/codec/cursor.c: little-endian integers out of bytes that nobody vouches for. */
#include "base/bytes.h"
#include "db/codec/codec.h"

uint8_t db__cursor_u8(struct db_cursor *c)
{
    const uint8_t *p = db__cursor_take(c, 1);
    return p ? *p : 0;
}

uint16_t db__cursor_u16(struct db_cursor *c)
{
    const uint8_t *p = db__cursor_take(c, 2);
    return p ? chr_get_u16le(p) : 0;
}

uint32_t db__cursor_u32(struct db_cursor *c)
{
    const uint8_t *p = db__cursor_take(c, 4);
    return p ? chr_get_u32le(p) : 0;
}

uint64_t db__cursor_u64(struct db_cursor *c)
{
    const uint8_t *p = db__cursor_take(c, 8);
    return p ? chr_get_u64le(p) : 0;
}
