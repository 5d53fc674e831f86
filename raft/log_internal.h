/* raft/log_internal.h: the log's own structures, for raft/log*.c alone.
 *
 * Threads. The writer (the thread that calls append and sync) owns everything below "writer's" in
 * struct raft_log; `lock` guards what readers and the helper see too. The writer may read guarded
 * fields that only it changes without the lock. `lock` is never held over a call to the disk. */
#ifndef CHR_RAFT_LOG_INTERNAL_H
#define CHR_RAFT_LOG_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/array.h"
#include "base/buf.h"
#include "raft/log.h"
#include "raft/log_format.h"

#define RAFT__GROUP_BYTES_MAX   (16u << 20) /* records of one group */
#define RAFT__SEGMENT_BYTES     (64u << 20)
#define RAFT__SEGMENT_BYTES_MAX (1u << 30)
#define RAFT__FIRST_BYTES       (1u << 20)
#define RAFT__GROWTH            8u          /* 1, 8, 64 MiB: the second one holds any entry */
#define RAFT__INDEX_EVERY       (64u << 10) /* bytes of records per entry of the sparse index */
#define RAFT__PREPARE_NAME      "prepare.tmp"
_Static_assert(RAFT__FIRST_BYTES *RAFT__GROWTH >=
                   RAFT_ENTRY_BYTES_MAX + RAFT__HEADER_BYTES + RAFT__RECORD_BYTES + 8,
               "an entry that does not fit the first segment fits the second");

struct raft__segment {
    uint64_t id;
    uint64_t capacity; /* bytes of the file */
    uint64_t end;      /* offset behind the last record written or found */
    int handle;
    uint32_t seed;
    /* The smallest index of a live entry here or in any segment after, and what is before it.
     * Rising over the segments; a truncation lowers it. */
    uint64_t first_index;
    uint64_t base_term;
    chr_hlc base_hlc;
    uint32_t readers; /* threads inside pread; lock */
    bool dirty;       /* written since its last fdatasync; writer's */
};

/* One in ~64 KiB of records, rising in index, term, hlc and pos; live entries only. */
struct raft__sparse {
    uint64_t index;
    chr_hlc hlc;
    raft__pos pos;
};
/* An entry above `index` that lies before `pos` is dead. */
struct raft__cut {
    raft__pos pos; /* of the truncate record */
    uint64_t index;
};

/* The part of the pending bytes that one pwrite takes. Parts of one group differ in their segment;
 * in RAFT_FSYNC_EVERY each entry is a group. */
struct raft__part {
    uint64_t segment;
    uint64_t offset; /* in the file */
    size_t from, to; /* in pending */
    raft__pos group;
    uint64_t last_index; /* of the log once this part is durable */
    /* When the part opens a segment: what the segment is born with. */
    bool opens;
    struct raft__header header;
};

/* Where the chain of records ends: what the next record has to join on to. */
struct raft__tail {
    raft__pos pos;
    uint32_t crc;
    uint64_t last_index, last_term;
    chr_hlc last_hlc;
    struct raft_hard_state hard_state;
    uint8_t last_type; /* of the last record; 0 none */
};

enum raft__next_state { RAFT__NEXT_NONE, RAFT__NEXT_WANTED, RAFT__NEXT_WORKING, RAFT__NEXT_READY };

struct raft_log {
    const struct raft_io *io;
    struct raft_log_options options; /* defaults filled in */
    uint64_t incarnation;

    _Atomic uint64_t first, last, synced, durable, bytes;
    _Atomic uint64_t truncations; /* counts them: a reader beside one begins anew */

    pthread_mutex_t lock;
    pthread_cond_t changed;                     /* next, garbage or stop changed */
    CHR_ARRAY(struct raft__segment *) segments; /* by id, without gaps; the last is written */
    CHR_ARRAY(struct raft__sparse) sparse;
    CHR_ARRAY(struct raft_term_run) terms;
    CHR_ARRAY(struct raft__cut) cuts;
    struct raft_log_stats stats;

    /* Segments that come and go (log_segments.c); guarded by lock. */
    enum raft__next_state next_state;
    bool next_awaited;          /* the writer stands still until next is READY */
    struct raft__segment *next; /* READY: an empty file with the id after the last segment's */
    CHR_ARRAY(struct raft__segment *)
    garbage;                    /* cut off, ascending; to be recycled or unlinked */
    CHR_ARRAY(uint64_t) spares; /* spare-<number>.seg, of segment_bytes each */
    bool garbage_waits;         /* the helper should look at it (again) */
    bool stop;
    bool helper_runs;
    pthread_t helper;

    /* Writer's. */
    struct raft__tail tail; /* behind everything appended, pending records included */
    raft__pos group;        /* number of the group being filled */
    uint64_t tail_capacity; /* of the segment tail.pos is in */
    uint32_t tail_seed;
    size_t sparse_bytes;    /* since the last entry of the sparse index */
    struct chr_buf pending; /* records (and headers) not yet synced */
    CHR_ARRAY(struct raft__part) parts;
    size_t parts_done; /* durable already (RAFT_FSYNC_EVERY stopped by a full disk) */
    size_t group_bytes;
    uint64_t unsynced_bytes; /* written, not fdatasynced: RAFT_FSYNC_PERIODIC */
    int64_t periodic_us;     /* when the last periodic fdatasync was; 0: not yet */
    bool doubt;
    char doubt_text[160];
};

/* ---- log_append.c: records into pending ---- */
/* A record that is not an entry: index, term and hlc of the tail, or what is to become them. On
 * success it is pending, at *pos; else (CHR_ENOMEM, CHR_EFULL) nothing happened. */
chr_err raft__put_special(raft_log *log, struct raft__record *record, raft__pos *pos);
/* Zeros from the end of a part to the end of its page, or of the segment. */
size_t raft__page_padding(const struct raft__part *part, uint64_t capacity);

/* ---- log_write.c: pending to the disk ---- */
/* Writes what is pending; `durable` asks for the fdatasync whatever the mode. */
chr_err raft__flush(raft_log *log, bool durable, struct chr_errmsg *msg);
/* fdatasync of every segment written since the last one. */
chr_err raft__sync_dirty(raft_log *log, struct chr_errmsg *msg);
/* Puts the log in doubt (L4); returns CHR_EDOUBT. */
chr_err raft__in_doubt(raft_log *log, struct chr_errmsg *msg, const char *what, uint64_t segment,
                       chr_err why);

/* ---- log_segments.c: files that come and go ---- */
/* Bytes of the segment after one of `capacity`, when record_bytes go there first. */
uint64_t raft__next_capacity(const raft_log *log, uint64_t capacity, uint64_t record_bytes);
/* The empty file that follows the last segment; waits for the helper or makes it here. */
chr_err raft__segment_next(raft_log *log, uint64_t capacity, struct raft__segment **segment,
                           struct chr_errmsg *msg);
/* A new file named for `id`, zeroed; `head` is what it begins with (NULL: zeros). Durable under its
 * name on return. */
chr_err raft__segment_create(raft_log *log, uint64_t id, uint64_t capacity, const uint8_t *head,
                             size_t head_bytes, struct raft__segment **segment,
                             struct chr_errmsg *msg);
/* Closes the handle and frees. */
void raft__segment_free(raft_log *log, struct raft__segment *segment);
/* Asks the helper for the next segment; without one this does nothing. */
void raft__want_next(raft_log *log);
/* Recycles or unlinks what cut_prefix let go; without a helper, here and now. */
void raft__garbage_ready(raft_log *log);
chr_err raft__helper_start(raft_log *log);
void raft__helper_stop(raft_log *log);

/* ---- log_index.c: what is held in memory about records; callers hold lock ---- */
struct raft__segment *raft__segment_by_id(const raft_log *log, uint64_t id);
/* Notes one live entry that begins at pos. False: out of memory. */
bool raft__index_add(raft_log *log, const struct raft__record *record, raft__pos pos);
/* Reserves for `entries` more adds, which then cannot fail. */
bool raft__index_reserve(raft_log *log, size_t entries);
/* A truncate record at pos: forgets entries above record->index. False: out of memory. */
bool raft__index_truncate(raft_log *log, const struct raft__record *record, raft__pos pos);
/* The same for the first_index of segments. */
void raft__lower_first(raft_log *log, const struct raft__record *record);
/* Forgets what lies below the first segment. */
void raft__index_cut(raft_log *log);
bool raft__is_dead(const raft_log *log, uint64_t index, raft__pos pos);
/* The last sparse entry at or below index, NULL when none. */
const struct raft__sparse *raft__index_seek(const raft_log *log, uint64_t index);
uint64_t raft__index_term(const raft_log *log, uint64_t index); /* 0: unknown */

/* ---- log_reader.c: bytes of a file through a window ---- */
struct raft__reader {
    const struct raft_io *io;
    struct chr_buf *buf; /* borrowed */
    int handle;
    uint64_t limit;   /* bytes of the file that may be looked at */
    uint64_t win_off; /* the window: file bytes [win_off, win_off + win_len) … */
    size_t win_at;    /* … are at buf->ptr + win_at */
    size_t win_len;
    size_t block; /* read at least so much at once */
    bool pinned;  /* what is in buf stays: the window only grows */
};
/* The next fetch is of another file. */
void raft__reader_file(struct raft__reader *reader, int handle, uint64_t limit);
/* Bytes [off, off+len): *ptr is valid until the next fetch; NULL when beyond limit or file. */
chr_err raft__reader_fetch(struct raft__reader *reader, uint64_t off, size_t len,
                           const uint8_t **ptr);
/* The valid record at off: 1, else 0, below 0 a chr_err. record->body is in the window. */
int raft__reader_record(struct raft__reader *reader, uint32_t seed, uint64_t off,
                        struct raft__record *record);

/* ---- log_read.c: live entries in order, from the synced part of the log ---- */
struct raft__cursor {
    raft_log *log;
    struct raft__reader reader;
    struct raft__segment *segment; /* its readers count holds it */
    uint64_t off, end;             /* in segment */
    uint64_t last;                 /* no entry above */
    uint32_t prev_crc;
    bool chained;  /* prev_crc is known */
    bool finished; /* has come to `last` */
};
/* Begins at or before `index`; goes up to `last`. CHR_ENOTFOUND: below the first. End it always. */
chr_err raft__cursor_start(struct raft__cursor *cursor, raft_log *log, struct chr_buf *buf,
                           size_t block, uint64_t index, uint64_t last);
/* 1: *record, its body in the buffer; 0: no more; below 0 chr_err (CHR_ECORRUPT, CHR_EIO…). */
int raft__cursor_next(struct raft__cursor *cursor, struct raft__record *record);
void raft__cursor_end(struct raft__cursor *cursor);
/* index, term and hlc of a live entry, in the log or still pending; CHR_ENOTFOUND. Writer. */
chr_err raft__find_entry(raft_log *log, uint64_t index, struct raft__record *record);

/* ---- log_recover.c ---- */
/* Fills segments, index and tail from the files. */
chr_err raft__recover(raft_log *log, uint64_t start_index, struct raft_log_recovery *recovery,
                      struct chr_errmsg *msg);

#endif
