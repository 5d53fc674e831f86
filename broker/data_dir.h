/* broker/data_dir.h: the data directory: whose it is, which format it has, that nobody else uses
 * it.
 *
 *     data/LOCK  node.meta  log/  db/  tmp/        (design section 5)
 *     data/install.new  install  install.done     a snapshot on its way in (broker/install.h)
 *     data/run                                    how to reach the node (broker/run_file.h)
 *
 * node.meta is text, one `key value` per line, replaced as a whole:
 *     format 1
 *     cluster 5f0c…        of a single node random; of a member made of its founders; 0: none yet
 *     node 1               node number; of a member: a hash of its --id
 *     incarnation 83aa…    random, made with the directory (R20)
 *     boot 1764547200000   rises with each start of a member (R18): by one, or to the time in ms
 *     founders 0100…       members that the cluster began with (raft/members.h), in hex
 *     members 812 3 0100…  entry index and term of the last change applied, and who they are then
 *     peer node4 10.0.0.4:8000 votes  another member: how it is reached; `learns` instead of
 *                          `votes`: it is not to become a voter by itself
 *     cluster_format 1     the newest format that the cluster may write (bridge/peer_codec.h); 1
 *     clean                stopped in order, with all of the log on the disk; not there while a
 *                          node runs
 *     log_parent 3f2a…     of a restored directory, or a forced new cluster: incarnation of the log
 *     log_fork 12345       its state came from, and the last entry of that log in it (R22)
 */
#ifndef CHR_BROKER_DATA_DIR_H
#define CHR_BROKER_DATA_DIR_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "bridge/peer_codec.h"
#include "raft/members.h"

#define DATA_DIR_FORMAT 1

struct data_dir_peer {
    struct peer_contact contact;
    bool votes;
};

struct data_dir {
    int lock_fd;
    uint64_t cluster;
    uint64_t node;
    uint64_t incarnation;
    uint64_t log_parent, log_fork; /* 0: not restored */
    /* Of a member of a cluster: */
    uint64_t boot;
    struct raft_members founders; /* count 0: not known: it joined later, or has not yet */
    struct raft_members members;  /* as of entry members_index; count 0: as founders */
    uint64_t members_index, members_term;
    struct data_dir_peer peers[RAFT_MEMBERS_MAX]; /* other members, as far as they are known */
    uint32_t peers_count;
    uint32_t cluster_format; /* not 0 */
    bool clean;              /* as node.meta says */
    bool was_clean;          /* before this start, or the directory is new: nothing was lost */
    char path[4096];
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
/* The same for a member of a cluster, this node (a number above 1). CHR_EFOREIGN: the directory is
 * another node's, or a single node's; that one becomes, with adopt, a member of a cluster of which
 * it is all there is. Its boot number has risen and its clean mark is gone, durably. */
CHR_MUST_USE chr_err data_dir_open_member(const char *path, uint64_t node, bool adopt,
                                          struct data_dir *dir, struct chr_errmsg *msg);
/* Writes node.meta anew, durably, as dir says. */
CHR_MUST_USE chr_err data_dir_save(const struct data_dir *dir, struct chr_errmsg *msg);
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
