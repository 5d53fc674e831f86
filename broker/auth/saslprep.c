#include "broker/auth/saslprep.h"

#include <stdbool.h>
#include <stdint.h>

#include "base/utf8.h"

enum direction { NEUTRAL, LEFT_TO_RIGHT, RIGHT_TO_LEFT, CHANGED };

struct range {
    uint32_t first, last, direction;
};
static const struct range unchanged[] = {
#include "broker/auth/saslprep_table.h"
};

static enum direction direction_of(uint32_t c)
{
    size_t low = 0, high = CHR_COUNT_OF(unchanged);
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (c > unchanged[middle].last)
            low = middle + 1;
        else
            high = middle;
    }
    return low < CHR_COUNT_OF(unchanged) && c >= unchanged[low].first
               ? (enum direction)unchanged[low].direction
               : CHANGED;
}

/* text is valid UTF-8 and not empty. */
static uint32_t take(chr_slice *text)
{
    uint8_t first = text->ptr[0];
    size_t len = first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    uint32_t c = len == 1 ? first : first & (0x7fu >> len);
    for (size_t i = 1; i < len; i++)
        c = c << 6 | (text->ptr[i] & 0x3fu);
    text->ptr += len;
    text->len -= len;
    return c;
}

const char *saslprep_fault(chr_slice text)
{
    if (text.len == 0)
        return "it is empty";
    if (!chr_utf8_valid(text))
        return "it is not UTF-8";
    bool has[CHANGED] = {false};
    enum direction first = NEUTRAL, last = NEUTRAL;
    for (bool begun = false; text.len; begun = true) {
        uint32_t c = take(&text);
        enum direction d = direction_of(c);
        if (c < ' ' || c == 0x7f)
            return "it has a control character";
        if (d == CHANGED)
            return "it has a character that SASLprep prohibits or changes";
        has[d] = true;
        first = begun ? first : d;
        last = d;
    }
    /* RFC 3454, 6 */
    if (has[RIGHT_TO_LEFT] &&
        (has[LEFT_TO_RIGHT] || first != RIGHT_TO_LEFT || last != RIGHT_TO_LEFT))
        return "it mixes directions of writing";
    return NULL;
}
