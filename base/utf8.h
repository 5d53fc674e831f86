/* base/utf8.h: UTF-8 as MQTT wants it (1.5.4): no surrogates, no overlong forms, no U+0000. */
#ifndef CHR_BASE_UTF8_H
#define CHR_BASE_UTF8_H

#include <stdbool.h>

#include "base/slice.h"

/* Well-formed per RFC 3629; U+0000 allowed. ASCII runs are checked 8 bytes at a time. */
bool chr_utf8_valid(chr_slice s);
/* The same without U+0000 [MQTT-1.5.4-1, -2]. */
bool chr_utf8_valid_mqtt(chr_slice s);
/* Number of code points of a valid string. */
size_t chr_utf8_length(chr_slice s);

#endif
