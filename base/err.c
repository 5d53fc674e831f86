/* base/err.c: names, texts and the errno bridge. */
#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

const char *chr_strerror(chr_err err)
{
    switch (err) {
#define X(name, number, text)                                                                      \
    case name:                                                                                     \
        return text;
        CHR_ERRORS(X)
#undef X
    default:
        return "unknown error";
    }
}

const char *chr_errname(chr_err err)
{
    switch (err) {
#define X(name, number, text)                                                                      \
    case name:                                                                                     \
        return #name;
        CHR_ERRORS(X)
#undef X
    default:
        return "CHR_UNKNOWN";
    }
}

chr_err chr_err_from_errno(int errnum)
{
    switch (errnum) {
    case 0:
        return CHR_OK;
    case ENOMEM:
        return CHR_ENOMEM;
    case EINVAL:
        return CHR_EINVAL;
    case ENOENT:
        return CHR_ENOTFOUND;
    case EEXIST:
        return CHR_EEXIST;
    case ENOSPC:
    case EDQUOT:
        return CHR_ENOSPC;
    case EACCES:
    case EPERM:
    case EROFS:
        return CHR_EACCES;
    case EBUSY:
    case EAGAIN:
        return CHR_EBUSY;
    case ETIMEDOUT:
        return CHR_ETIMEDOUT;
    case ECANCELED:
        return CHR_ECANCELLED;
    case EPIPE:
    case ECONNRESET:
    case ECONNABORTED:
    case ECONNREFUSED:
    case ENOTCONN:
        return CHR_ECLOSED;
    case EFBIG:
    case E2BIG:
    case EMSGSIZE:
    case ENAMETOOLONG:
        return CHR_ETOOBIG;
    case EMFILE:
    case ENFILE:
        return CHR_EFULL;
    case ERANGE:
    case EOVERFLOW:
        return CHR_ERANGE;
    case ENOSYS:
    case EOPNOTSUPP:
        return CHR_EUNSUPPORTED;
    default:
        return CHR_EIO;
    }
}

chr_err chr_fail(struct chr_errmsg *msg, chr_err err, const char *format, ...)
{
    if (msg) {
        va_list args;
        va_start(args, format);
        if (vsnprintf(msg->text, sizeof msg->text, format, args) < 0)
            msg->text[0] = '\0';
        va_end(args);
    }
    return err;
}
