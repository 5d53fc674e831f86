/* base/err.h: the errors of every folder, one table of code, name and text.
 *
 * 0 is success, negative is a name from the table below. A chr_err says what kind of thing went
 * wrong so that a caller can branch; the human sentence that names the file, column or packet
 * travels beside it (struct chr_errmsg) where one is needed. A chr_err becomes an MQTT reason code
 * or an SQLSTATE once, at the door: broker/session/reason.c and sqlfront/sqlstate.c. */
#ifndef CHR_BASE_ERR_H
#define CHR_BASE_ERR_H

#include "base/compiler.h"

/* X(name, number, text) */
#define CHR_ERRORS(X)                                                                              \
    X(CHR_OK, 0, "success")                                                                        \
    X(CHR_ENOMEM, -1, "out of memory")                                                             \
    X(CHR_EINVAL, -2, "invalid argument")                                                          \
    X(CHR_EFULL, -3, "no room left within a fixed limit")                                          \
    X(CHR_ENOTFOUND, -4, "not found")                                                              \
    X(CHR_EEXIST, -5, "already exists")                                                            \
    X(CHR_EIO, -6, "input/output error")                                                           \
    X(CHR_ENOSPC, -7, "no space left on device")                                                   \
    X(CHR_ECORRUPT, -8, "stored data is damaged")                                                  \
    X(CHR_EVERSION, -9, "unknown format version")                                                  \
    X(CHR_EPROTO, -10, "protocol violation")                                                       \
    X(CHR_EMALFORMED, -11, "malformed input")                                                      \
    X(CHR_ETOOBIG, -12, "larger than the limit")                                                   \
    X(CHR_EACCES, -13, "not allowed")                                                              \
    X(CHR_EBUSY, -14, "busy")                                                                      \
    X(CHR_ETIMEDOUT, -15, "timed out")                                                             \
    X(CHR_ECANCELLED, -16, "cancelled")                                                            \
    X(CHR_ECLOSED, -17, "closed")                                                                  \
    X(CHR_ERANGE, -18, "value out of range")                                                       \
    X(CHR_ETYPE, -19, "value of the wrong type")                                                   \
    X(CHR_ECONFLICT, -20, "conflicts with a concurrent change")                                    \
    X(CHR_EDUPKEY, -21, "duplicate key")                                                           \
    X(CHR_ENOTNULL, -22, "NULL in a NOT NULL column")                                              \
    X(CHR_ESTALE, -23, "decoded under an older version of the mappings")                           \
    X(CHR_ELOCKED, -24, "in use by another process")                                               \
    X(CHR_EFOREIGN, -25, "belongs to another node or cluster")                                     \
    X(CHR_EDOUBT, -26, "a sync failed; state on disk is in doubt until reopened")                  \
    X(CHR_EUNSUPPORTED, -27, "not supported")                                                      \
    X(CHR_EAGAIN, -28, "no room at the moment; try again later")

enum {
#define X(name, number, text) name = (number),
    CHR_ERRORS(X)
#undef X
};
typedef int chr_err;

/* The text of a code ("unknown error" for a number outside the table). Static, never NULL. */
const char *chr_strerror(chr_err err);
/* The name of a code, "CHR_EFULL". Static, never NULL. */
const char *chr_errname(chr_err err);
/* The chr_err that stands for an errno value; ENOSPC and EDQUOT are CHR_ENOSPC, others CHR_EIO
 * unless the table has a closer one. */
chr_err chr_err_from_errno(int errnum);

/* A sentence for a human: what was wrong and where. Filled by the function that failed, owned by
 * the caller, always zero-terminated, cut at its size. */
struct chr_errmsg {
    char text[256];
};
/* Writes the sentence (msg may be NULL) and returns err, so that `return chr_fail(...)` reads well.
 */
CHR_PRINTF(3, 4) chr_err chr_fail(struct chr_errmsg *msg, chr_err err, const char *format, ...);

#endif
