/* raft/log.h: the replicated log on disk, written in groups (R16, design section 5).
 *
 * One thread (the log writer) calls append, sync, hard state, truncate and cut; the others may be
 * called by any thread, for entries at or below the synced index. Entries are safe once
 * raft_log_synced() reaches their index; until then nobody above may acknowledge them.
 *
 *     open, recover ─▶ append… ─▶ sync ─▶ append… ─▶ sync … ─▶ close
 *                      └── one group ──┘   L1: group n+1 is written only after the sync of group n
 *
 * Invariants
 *   L1  Group n+1 is written only after the fdatasync of group n returned.
 *   L2  Indexes are consecutive, terms never fall, HLCs strictly rise from record to record.
 *   L3  A record's CRC chains from the record before it, across segments.
 *   L4  After a failed sync nothing is acknowledged until the log was closed, opened and replayed
 *       (CHR_EDOUBT from every call but close). CHR_ENOSPC is different: nothing was promised, the
 *       group stays appended, and raft_log_sync is called again when there is room. A group of
 *       which any byte may have been written is never changed again, only added to.
 *   L5  Term and vote are fsynced in every fsync mode before raft_log_set_hard_state returns.
 *   L6  What raft_log_open returned is durable and proven: the last group, the only one that no
 *       later group proves, is written and synced once more, and a witness group behind it.
 *
 * Files: log/00000000000000000001.seg …, 64 MiB each, zero-written ahead or recycled; the byte
 * layout is in raft/log_format.h. */
#ifndef CHR_RAFT_LOG_H
#define CHR_RAFT_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/hlc.h"
#include "base/slice.h"
#include "raft/io.h"

#define RAFT_ENTRY_BYTES_MAX (4u << 20) /* design section 1: an entry is at most 4 MiB */

/* u64 node, u64 boot, u64 sequence (db/origin.h). */
#define RAFT_ORIGIN_BYTES 24u

enum raft_entry_type {
    RAFT_ENTRY_NOOP = 1,   /* a new leader's first entry of its term */
    RAFT_ENTRY_DATA = 2,   /* operations for the state machine; see db/op.h */
    RAFT_ENTRY_TICK = 3,   /* moves replicated time only (R13) */
    RAFT_ENTRY_CONFIG = 4, /* membership; see raft/members.h */
    /* Operations that another node forwarded (R18): RAFT_ORIGIN_BYTES that say whence, then as
     * DATA. */
    RAFT_ENTRY_FORWARDED = 5,
    RAFT_ENTRY_TYPE_MAX = RAFT_ENTRY_FORWARDED
};

struct raft_entry {
    uint64_t index; /* 1 is the first; set by the core when proposed */
    uint64_t term;
    chr_hlc hlc; /* stamped by the leader when it appends, strictly rising (R14) */
    enum raft_entry_type type;
    chr_slice bytes; /* borrowed by whoever is handed the entry; at most RAFT_ENTRY_BYTES_MAX */
};

/* Entries from first_index on, up to the next run, have this term. */
struct raft_term_run {
    uint64_t first_index, term;
};

struct raft_hard_state {
    uint64_t term;
    uint64_t vote; /* node number voted for in term; 0 none */
};

enum raft_fsync {
    RAFT_FSYNC_BATCH,   /* one fdatasync per group, answered after it (default) */
    RAFT_FSYNC_EVERY,   /* one per entry */
    RAFT_FSYNC_PERIODIC /* answered before; synced every periodic_ms (and each 16 MiB) */
};

/* What comes before the first entry of a log that begins behind a snapshot. */
struct raft_log_base {
    uint64_t term; /* of the entry before; 0: not known, or there is none */
    chr_hlc hlc;   /* of that entry; entries of this log are later (L2) */
    /* What the node has promised so far: it goes with the node, not with the log. Its term is not
     * below the other one. */
    struct raft_hard_state hard_state;
};

struct chr_clock;
struct raft_log_options {
    /* 0: 64 MiB. A multiple of 4096, at most 1 GiB. An entry that does not fit gets a larger
     * segment. */
    uint64_t segment_bytes;
    /* The very first segment; each new one is 8 times the one before until segment_bytes, so that
     * an idle node neither writes nor keeps 64 MiB of zeros. 0: 1 MiB (at most segment_bytes). */
    uint64_t first_segment_bytes;
    uint64_t recycle_max; /* spare segments kept for reuse */
    enum raft_fsync fsync;
    uint32_t periodic_ms; /* for RAFT_FSYNC_PERIODIC */
    bool prepare_ahead;   /* a helper thread zero-writes the next segment; off in the simulator */
    bool read_only;       /* verify and read; changes nothing (`chronos check`) */
    uint64_t incarnation; /* of a log that is created now (R22); 0: a random one */
    /* Of a log that is created now, at raft_log_open's start_index; zeros: the very first one. A
     * log that is there already keeps what it was created with. */
    struct raft_log_base base;
    const struct chr_clock *clock; /* for the statistics alone; NULL: the system's. Borrowed */
};

/* What raft_log_open found; for the log line at start and for `chronos check`. */
struct raft_log_recovery {
    uint64_t first_index; /* 0: empty */
    uint64_t last_index;
    uint64_t last_term; /* of the entry last_index, or of the one before an empty log */
    chr_hlc last_hlc;
    uint64_t torn_bytes; /* bytes of a torn tail that were cut; 0: none that could be told */
    uint64_t torn_segment;
    uint64_t torn_offset;
    struct raft_hard_state hard_state;
    uint64_t incarnation; /* drawn when this log was created (R22) */
    uint64_t segments;
};

typedef struct raft_log raft_log; /* opaque; from raft_log_open, to raft_log_close */

/* Opens and verifies the whole log. start_index: index after the last one a checkpoint holds; an
 * empty log begins there, behind options->base, which is then as durable as an entry, and a log
 * must join on to it. 0, where the log is only read: whatever it holds is right. io is borrowed
 * until close.
 *   CHR_ECORRUPT  a bad record is followed by a valid record of a later group, a segment is
 * missing, or the log does not reach start_index; msg names segment, offset and remedy. Nothing was
 * changed. CHR_EVERSION  a segment of a newer format. CHR_EINVAL  options->base contradicts itself.
 */
CHR_MUST_USE chr_err raft_log_open(const struct raft_io *io, const struct raft_log_options *options,
                                   uint64_t start_index, raft_log **log,
                                   struct raft_log_recovery *recovery, struct chr_errmsg *msg);
/* Accepts NULL. Unsynced appends are dropped (never written); what RAFT_FSYNC_PERIODIC still owes
 * is synced. Unless in doubt, the log is left with a witness (L6): after a clean close damage to
 * any entry is told from a torn tail. */
void raft_log_close(raft_log *log);

/* Adds entries to the group being filled; does not touch the disk.
 *   entries  borrowed until return (the bytes are copied into the group's write buffer)
 *            index, term and hlc keep L2 (asserted)
 * CHR_EFULL: the group is at its limit (16 MiB; a call with more never fits): sync first.
 * CHR_ETOOBIG: an entry above RAFT_ENTRY_BYTES_MAX. CHR_ENOMEM. After each the log is exactly as it
 * was. */
CHR_MUST_USE chr_err raft_log_append(raft_log *log, const struct raft_entry *entries,
                                     size_t entries_count);
/* Writes the group and makes it durable as the fsync mode says. On success raft_log_synced() is the
 * last appended index. CHR_ENOSPC: nothing was promised, the group stays appended; call sync again
 * when there is room (L4). CHR_EDOUBT: the log is in doubt; msg says why. */
CHR_MUST_USE chr_err raft_log_sync(raft_log *log, struct chr_errmsg *msg);
/* RAFT_FSYNC_PERIODIC only: the fdatasync that is owed, when due by mono_us (or force); writes an
 * open group first. Errors as raft_log_sync. */
CHR_MUST_USE chr_err raft_log_sync_periodic(raft_log *log, int64_t mono_us, bool force);
/* Writes a hard-state record, behind the open group if there is one, and fsyncs all of it (L5).
 * Errors as raft_log_sync; after CHR_ENOSPC call it again. */
CHR_MUST_USE chr_err raft_log_set_hard_state(raft_log *log, struct raft_hard_state state);

/* Any thread. */
uint64_t raft_log_first(const raft_log *log);  /* smallest index held; last+1 when empty */
uint64_t raft_log_last(const raft_log *log);   /* largest appended index */
uint64_t raft_log_synced(const raft_log *log); /* largest index that may be acknowledged */
/* Largest index that was fdatasynced: raft_log_synced(), but in RAFT_FSYNC_PERIODIC behind it. A
 * checkpoint must not go beyond this one. */
uint64_t raft_log_durable(const raft_log *log);
/* Bytes of records held, for the checkpoint trigger. */
uint64_t raft_log_bytes(const raft_log *log);
/* 0 when not held; raft_log_first() - 1 is still known (Raft's previous term of the first entry).
 */
uint64_t raft_log_term_of(const raft_log *log, uint64_t index);
/* The terms of all entries held, as runs. Returns how many there are; fills in at most max. */
size_t raft_log_terms(const raft_log *log, struct raft_term_run *out, size_t max);
uint64_t raft_log_incarnation(const raft_log *log); /* R22 */

/* Reads entries from index on, at most max_bytes of them (at least one), into buf, which grows.
 * entries[].bytes point into buf. *count 0 at the end. Verifies every CRC again: CHR_ECORRUPT.
 * CHR_ENOTFOUND: index is below raft_log_first(). */
struct chr_buf;
CHR_MUST_USE chr_err raft_log_read(raft_log *log, uint64_t index, size_t max_bytes,
                                   struct chr_buf *buf, struct raft_entry *entries,
                                   size_t entries_max, size_t *count);

/* Drops entries above index: a conflicting suffix (Raft paper 5.3). Durable on return. It is a
 * record too: nothing is overwritten, so a crash leaves the suffix either there or gone.
 * CHR_EINVAL: below raft_log_first() - 1. CHR_EIO, CHR_ECORRUPT: the entry `index` cannot be read,
 * nothing happened. Else errors as raft_log_sync; after CHR_ENOSPC the entries are gone from this
 * log but perhaps not from the disk: call it again before anything is acknowledged. */
CHR_MUST_USE chr_err raft_log_truncate_suffix(raft_log *log, uint64_t index);
/* Lets segments go whose entries are all at or below index; they are recycled or unlinked, in the
 * background with prepare_ahead. Never the segment being written. */
CHR_MUST_USE chr_err raft_log_cut_prefix(raft_log *log, uint64_t index);
/* The smallest synced index whose HLC is at or above hlc; synced+1 when there is none. */
CHR_MUST_USE chr_err raft_log_seek_hlc(raft_log *log, chr_hlc hlc, uint64_t *index);

/* Counters for /metrics. Any thread. */
struct raft_log_stats {
    uint64_t groups, entries, bytes_written, syncs, sync_us_total, sync_us_max;
    uint64_t segments, segments_recycled, enospc_waits;
};
void raft_log_stats(const raft_log *log, struct raft_log_stats *out);

#endif
