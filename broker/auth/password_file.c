#include "broker/auth/password_file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/utf8.h"
#include "broker/auth/auth.h"

const char *password_name_fault(chr_slice name)
{
    if (name.len && memchr(name.ptr, ':', name.len))
        return "a user's name has a colon";
    return auth_trusted_name_fault(name);
}

const char *auth_trusted_name_fault(chr_slice name)
{
    if (name.len == 0)
        return "a user has no name";
    if (name.len > AUTH_USER_BYTES_MAX)
        return "a user's name is longer than 1024 bytes";
    if (chr_slice_starts(name, CHR_LIT("token:")) || chr_slice_starts(name, CHR_LIT("chronos:")))
        return "a user's name is one of the node's own";
    if (!chr_utf8_valid_mqtt(name))
        return "a user's name is not UTF-8";
    for (size_t i = 0; i < name.len; i++)
        if (name.ptr[i] < ' ' || name.ptr[i] == 0x7f)
            return "a user's name has a control character";
    return NULL;
}

chr_err password_file_each(chr_slice text, const char *path,
                           chr_err (*each)(void *arg, chr_slice name, chr_slice hash,
                                           uint32_t line),
                           void *arg, struct chr_errmsg *msg)
{
    for (uint32_t number = 1; text.len; number++) {
        const uint8_t *end = memchr(text.ptr, '\n', text.len);
        chr_slice line = chr_slice_of(text.ptr, end ? (size_t)(end - text.ptr) : text.len);
        size_t used = line.len + (end != NULL);
        text.ptr += used;
        text.len -= used;
        while (line.len && strchr(" \t\r", line.ptr[line.len - 1]) && line.ptr[line.len - 1])
            line.len--;
        if (line.len == 0 || line.ptr[0] == '#')
            continue;
        const uint8_t *colon = memchr(line.ptr, ':', line.len);
        if (!colon)
            return chr_fail(msg, CHR_EINVAL, "%s:%u: a line has the form name:hash", path, number);
        chr_slice name = chr_slice_of(line.ptr, (size_t)(colon - line.ptr));
        chr_slice hash = chr_slice_of(colon + 1, line.len - name.len - 1);
        const char *fault = password_name_fault(name);
        if (fault)
            return chr_fail(msg, CHR_EINVAL, "%s:%u: %s", path, number, fault);
        chr_err err = each(arg, name, hash, number);
        if (err)
            return err;
    }
    return CHR_OK;
}

chr_err auth_read_file(const char *path, size_t bytes_max, struct chr_buf *out,
                       struct chr_errmsg *msg)
{
    chr_buf_init(out, bytes_max + 1);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return chr_fail(msg, chr_err_from_errno(errno), "can't read %s: %s", path, strerror(errno));
    chr_err err = CHR_OK;
    struct stat st;
    if (fstat(fd, &st) == 0 && S_ISDIR(st.st_mode))
        err = chr_fail(msg, CHR_EINVAL, "can't read %s: it is a directory", path);
    while (!err) {
        err = chr_buf_reserve(out, CHR_MIN(bytes_max + 1 - out->len, (size_t)65536));
        if (err)
            break;
        ssize_t n = read(fd, out->ptr + out->len, CHR_MIN(bytes_max + 1 - out->len, (size_t)65536));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            err = chr_fail(msg, chr_err_from_errno(errno), "can't read %s: %s", path,
                           strerror(errno));
        if (n <= 0)
            break;
        out->len += (size_t)n;
        if (out->len > bytes_max)
            err = chr_fail(msg, CHR_ETOOBIG, "%s is larger than %zu bytes", path, bytes_max);
    }
    if (err == CHR_ENOMEM)
        (void)chr_fail(msg, err, "can't read %s: out of memory", path);
    close(fd);
    if (err)
        chr_buf_free(out);
    return err;
}
