#!/usr/bin/env python3
"""Writes base/power_of_ten.c: python3 base/power_of_ten.py > base/power_of_ten.c"""

FIRST, LAST = -342, 324

print("""/* base/power_of_ten.c: written by base/power_of_ten.py; edit that. */
#include "base/power_of_ten.h"

/* clang-format off */
const struct chr__power_of_ten chr__powers_of_ten[CHR__POWER_LAST - CHR__POWER_FIRST + 1] = {""")
for q in range(FIRST, LAST + 1):
    # 10^q = numerator / denominator; its highest bit goes to bit 127, the rest is rounded up.
    numerator, denominator = 10 ** max(q, 0), 10 ** max(-q, 0)
    shift = 127 - (q * 1741647 >> 19)
    if shift >= 0:
        numerator <<= shift
    else:
        denominator <<= -shift
    g = -(-numerator // denominator)
    assert g.bit_length() == 128, q
    print("    {0x%016x, 0x%016x}, /* 1e%d */" % (g >> 64, g & (1 << 64) - 1, q))
print("""};""")
