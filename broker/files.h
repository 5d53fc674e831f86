/* broker/files.h: small files and directories, durably. Every function names the path in msg. */
#ifndef CHR_BROKER_FILES_H
#define CHR_BROKER_FILES_H

#include <stdbool.h>

#include "base/buf.h"
#include "base/err.h"

#define FILES_PATH_MAX 4096

/* a/b. CHR_ETOOBIG. */
CHR_MUST_USE chr_err files_join(char out[FILES_PATH_MAX], const char *a, const char *b,
                                struct chr_errmsg *msg);
bool files_exist(const char *path);
CHR_MUST_USE chr_err files_make_dir(const char *path, struct chr_errmsg *msg); /* may be there */
/* Makes creations, renames and removals in the directory durable. */
CHR_MUST_USE chr_err files_sync_dir(const char *path, struct chr_errmsg *msg);
CHR_MUST_USE chr_err files_rename(const char *from, const char *to, struct chr_errmsg *msg);
/* The file, or the directory and all in it; absent is no error. Follows no links. */
CHR_MUST_USE chr_err files_remove_tree(const char *path, struct chr_errmsg *msg);
/* A file that its owner alone can read, as a whole: written beside, synced, renamed; the directory
 * is synced too. */
CHR_MUST_USE chr_err files_replace(const char *path, chr_slice bytes, struct chr_errmsg *msg);
/* Appends all of it to out. CHR_ENOTFOUND; CHR_EFULL: beyond out's maximum. */
CHR_MUST_USE chr_err files_read(const char *path, struct chr_buf *out, struct chr_errmsg *msg);

#endif
