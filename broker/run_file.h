/* broker/run_file.h: D/run: how whoever may read the data directory reaches the node that has it.
 *
 * Text, one `key value` per line, there while the node serves (after a kill it is left over, but
 * then nobody holds the directory's lock):
 *     mqtt 127.0.0.1:1883
 *     admin 127.0.0.1:2883
 *     token 9c1f…            makes an admin of who says it, as the node's own prompt is one
 *
 * Its owner alone can read it. It gives nobody more than the directory itself does: all of the
 * data. */
#ifndef CHR_BROKER_RUN_FILE_H
#define CHR_BROKER_RUN_FILE_H

#include "base/err.h"

struct broker_node;

struct run_file {
    char admin[80];
    char token[80];
};

/* When the node serves. Failing to write it is worth a log line, not more. */
void run_file_write(const struct broker_node *node);
void run_file_remove(const struct broker_node *node);
/* CHR_ENOTFOUND: there is none. CHR_ECORRUPT. */
CHR_MUST_USE chr_err run_file_read(const char *data_dir, struct run_file *out,
                                   struct chr_errmsg *msg);

#endif
