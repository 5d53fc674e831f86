/* base/crc32c.h: CRC-32C (Castagnoli), RFC 3720 appendix B.4; the check of everything we store.
 *
 * Uses the SSE4.2 instruction where the CPU has it, the ARMv8 one where the compiler was told of it
 * (-march=armv8-a+crc), a table otherwise; same result. */
#ifndef CHR_BASE_CRC32C_H
#define CHR_BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* Continues `crc` (0 to begin; the value returned is already finished, so chaining
 * crc(crc(0, a), b) == crc(0, ab)). */
uint32_t chr_crc32c(uint32_t crc, const void *bytes, size_t len);
/* The portable version, for tests and other CPUs. */
uint32_t chr_crc32c_table(uint32_t crc, const void *bytes, size_t len);

#endif
