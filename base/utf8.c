/* base/utf8.c: well-formedness after table 3-7 of the Unicode standard. */
#include "base/utf8.h"

#include "base/bytes.h"

#define HIGH_BITS 0x8080808080808080
#define LOW_BITS  0x0101010101010101

/* Bytes of the well-formed non-ASCII sequence at p, 0 when there is none. */
static size_t sequence_len(const uint8_t *p, size_t left)
{
    uint8_t lead = p[0];
    if (left < 2 || lead < 0xc2 || lead > 0xf4)
        return 0;
    uint8_t second = p[1];
    if (lead < 0xe0)
        return (second & 0xc0) == 0x80 ? 2 : 0;
    /* The second byte is where overlong forms, surrogates and what lies past U+10FFFF show. */
    uint8_t low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    uint8_t high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
    if (second < low || second > high || left < 3 || (p[2] & 0xc0) != 0x80)
        return 0;
    if (lead < 0xf0)
        return 3;
    return left >= 4 && (p[3] & 0xc0) == 0x80 ? 4 : 0;
}

CHR_INLINE bool valid(chr_slice s, bool allow_zero)
{
    const uint8_t *p = s.ptr;
    size_t left = s.len;
    while (left) {
        if (left >= 8) {
            uint64_t word = chr_get_u64le(p);
            /* Without high bits, word - LOW_BITS borrows into a high bit exactly if a byte is 0. */
            uint64_t stop = allow_zero ? word : word | (word - LOW_BITS);
            if ((stop & HIGH_BITS) == 0) {
                p += 8;
                left -= 8;
                continue;
            }
        }
        if (*p < 0x80) {
            if (!allow_zero && *p == 0)
                return false;
            p++;
            left--;
            continue;
        }
        size_t n = sequence_len(p, left);
        if (n == 0)
            return false;
        p += n;
        left -= n;
    }
    return true;
}

bool chr_utf8_valid(chr_slice s)
{
    return valid(s, true);
}

bool chr_utf8_valid_mqtt(chr_slice s)
{
    return valid(s, false);
}

size_t chr_utf8_length(chr_slice s)
{
    size_t count = 0;
    for (size_t i = 0; i < s.len; i++)
        count += (s.ptr[i] & 0xc0) != 0x80;
    return count;
}
