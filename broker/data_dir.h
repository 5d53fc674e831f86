/* broker/data_dir.h: the data directory: whose it is, which format it has, that nobody else uses
 * it.
 *
 *     data/LOCK  node.meta  log/  db/  tmp/        (design section 5)
 *     data/install.new  install  install.done     a snapshot on its way in (broker/install.h)
 *     data/run                                    how to reach the node (broker/run_file.h)
 *     data/members                                who belonged to the group before the log begins
 *
 * node.meta is text, one `key value` per line, replaced as a whole:
 *     format 1
 *     cluster 5f0c…      random, made with the first node of a cluster
 *     node 1             node number in the cluster
 *     incarnation 83aa…  random, made with the directory (R20)
 *     log_parent 3f2a…   of a restored directory: incarnation of the log its state came from,
 *     log_fork 12345     and the last entry of that log in it (R22)
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
    uint64_t log_parent, log_fork; /* 0: not restored */
    char log_path[4096];
    char db_path[4096];
    char tmp_path[4096];
};

/* Makes the directory when absent (create), takes the lock, reads or writes node.meta, empties
 * tmp/. CHR_ELOCKED   another process has it CHR_EFOREIGN  not empty, and not a Chronos data
 * directory CHR_EVERSION  written by a newer version CHR_EACCES, CHR_EIO, CHR_ENOTFOUND … with a
 * sentence that names the path */
CHR_MUST_USE chr_err data_dir_open(const char *path, bool create, struct data_dir *dir,
                                   struct chr_errmsg *msg);
void data_dir_close(struct data_dir *dir);

/* Writes `path`/node.meta, durably and as a whole. */
CHR_MUST_USE chr_err data_dir_write_meta(const char *path, const struct data_dir *dir,
                                         struct chr_errmsg *msg);
/* Reads `path`/node.meta into dir's numbers. CHR_ENOTFOUND, CHR_ECORRUPT, CHR_EVERSION. */
CHR_MUST_USE chr_err data_dir_read_meta(const char *path, struct data_dir *dir,
                                        struct chr_errmsg *msg);
/* Has it files of anybody's, a node's or another's, beside what a file system puts there? */
bool data_dir_holds_files(const char *path);

#endif
