/* broker/data_dir.h: the data directory: whose it is, which format it has, that nobody else uses
 * it.
 *
 *     data/LOCK  node.meta  log/  db/  tmp/        (design section 5)
 *
 * node.meta is text, one `key value` per line, replaced as a whole:
 *     format 1
 *     cluster 5f0c…      random, made with the first node of a cluster
 *     node 1             node number in the cluster
 *     incarnation 83aa…  random, made with the directory (R20)
 */
#ifndef CHR_BROKER_DATA_DIR_H
#define CHR_BROKER_DATA_DIR_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

#define DATA_DIR_FORMAT 1

struct data_dir {
    int lock_fd;
    uint64_t cluster;
    uint64_t node;
    uint64_t incarnation;
    char log_path[4096];
    char db_path[4096];
};

/* Makes the directory when absent (create), takes the lock, reads or writes node.meta, empties
 * tmp/. CHR_ELOCKED   another process has it CHR_EFOREIGN  not empty, and not a Chronos data
 * directory CHR_EVERSION  written by a newer version CHR_EACCES, CHR_EIO, CHR_ENOTFOUND … with a
 * sentence that names the path */
CHR_MUST_USE chr_err data_dir_open(const char *path, bool create, struct data_dir *dir,
                                   struct chr_errmsg *msg);
void data_dir_close(struct data_dir *dir);

#endif
