/* broker/auth/password_file.h: `name:hash`, one user a line, as mosquitto_passwd writes it. Pure.
 */
#ifndef CHR_BROKER_AUTH_PASSWORD_FILE_H
#define CHR_BROKER_AUTH_PASSWORD_FILE_H

#include "base/err.h"
#include "base/slice.h"
#include "broker/auth/password.h"

#define PASSWORD_FILE_BYTES_MAX (256u << 20)

/* Calls each(arg, name, hash, line) for every user; blank lines and those that begin with `#` are
 * passed over. path: for messages. each returns a chr_err to stop with; its message is its own. */
CHR_MUST_USE chr_err password_file_each(chr_slice text, const char *path,
                                        chr_err (*each)(void *arg, chr_slice name, chr_slice hash,
                                                        uint32_t line),
                                        void *arg, struct chr_errmsg *msg);
/* NULL: it can be a user's name. Else what is wrong with it. */
const char *password_name_fault(chr_slice name);
/* The whole of a file; caller frees out with chr_buf_free. The message names it. */
CHR_MUST_USE chr_err auth_read_file(const char *path, size_t bytes_max, struct chr_buf *out,
                                    struct chr_errmsg *msg);

#endif
