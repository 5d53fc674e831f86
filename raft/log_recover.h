/* raft/log_recover.h: what log_recover.c (files, chain) and log_repair.c (what is behind the
 * chain's end, the cut) share while a log is opened. */
#ifndef CHR_RAFT_LOG_RECOVER_H
#define CHR_RAFT_LOG_RECOVER_H

#include "raft/log_internal.h"

#define RAFT__BLOCK_BYTES (1u << 20)
#define RAFT__REMEDY      "restore this node from a backup or a peer; nothing was changed"

struct raft__found {
    uint64_t id;
    uint64_t bytes;
    int handle;
    bool valid; /* header is decoded and of this id */
    struct raft__header header;
};

struct raft__recovery {
    raft_log *log;
    struct raft_log_recovery *out;
    struct chr_errmsg *msg;
    CHR_ARRAY(struct raft__found) files; /* by id */
    bool prepare_left;                   /* prepare.tmp exists */
    bool nomem;

    struct chr_buf buf;
    struct raft__reader reader;
    size_t at;             /* the file the chain ended in */
    raft__pos last_group;  /* of the last record (or header) of the chain */
    uint64_t evidence_end; /* offset in files[at] behind what could be taken for a record; 0 none */
    uint64_t evidence_bytes_after; /* in later segments */
};

/* Step 3: CHR_ECORRUPT when the chain's end was durable once; else the evidence fields. */
chr_err raft__look_behind(struct raft__recovery *r);
/* Step 4. */
chr_err raft__repair(struct raft__recovery *r);
/* Spares of another size (the option changed) or too many go. */
chr_err raft__settle_spares(struct raft__recovery *r);

#endif
