/* tests/sim/fake_disk.h: a disk in memory that does what real ones do to us.
 *
 * It implements struct raft_io over two pictures of one directory: what the running system sees
 * (the page cache) and what the platter holds. A write changes the first; sync moves a file's
 * written sectors to the second; sync_dir does the same for names. At a crash each sector written
 * since the last sync is, by the seed, on the platter or not (a write tears at any sector), and
 * each name change likewise: mostly in order (a journal loses its end, not its middle), if asked
 * for in none.
 *
 *     fake_disk_open … use disk->io … fake_disk_off, tear down the user, fake_disk_crash (or _kill)
 *     … use disk->io again … fake_disk_close
 *
 * What it models of a failed fsync: the written sectors since the last sync are lost to the platter
 * (each, by the seed), still visible to reads, and clean: a later sync does not write them. That is
 * what Linux does.
 *
 * Single thread. Same seed, same calls: same behaviour. */
#ifndef CHR_TESTS_SIM_FAKE_DISK_H
#define CHR_TESTS_SIM_FAKE_DISK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/random.h"
#include "raft/io.h"

#define FAKE_DISK_SECTOR 512u

/* Chances are per call, in parts of 10,000. All zero: a disk that works. */
struct fake_disk_faults {
    uint32_t write_eio;
    uint32_t write_enospc; /* after writing a random part: room ran out, and may be back later */
    uint32_t sync_eio;
    uint32_t read_eio;
    uint32_t dir_eio; /* create, rename, unlink, sync_dir */
    bool sync_lies;   /* sync and sync_dir return success and do nothing (planted bug) */
    /* At a crash a torn sector's changed bytes may become anything, not only old or new. */
    uint32_t garbage; /* per torn sector */
    /* At a crash each name change since the last sync_dir is kept or lost by itself. */
    bool names_unordered;
    uint64_t capacity; /* bytes of all files; 0: no limit. Shrink or grow it at will */
    /* The n-th operation from now that can fail (open, pread, pwrite, sync, truncate, rename,
     * unlink, sync_dir, list) fails once with nth_error; 0: none. Counts down. */
    uint64_t nth;
    chr_err nth_error;
    bool nth_off; /* … and the disk is off from then on: power fails in the middle of that call */
};

struct fake_disk_counters {
    uint64_t opens, reads, writes, write_bytes, syncs, dir_changes, dir_syncs;
    uint64_t failed; /* calls that a fault made fail */
};

struct fake_inode; /* a file, named or not */
struct fake_name {
    char name[RAFT_IO_NAME_MAX];
    struct fake_inode *inode;
};
struct fake_names {
    struct fake_name *items;
    size_t count, capacity;
};

struct fake_change {
    char from[RAFT_IO_NAME_MAX], to[RAFT_IO_NAME_MAX]; /* from alone: unlink; to alone: creation */
    struct fake_inode *inode;
};

struct fake_disk {
    struct raft_io io; /* hand &io to what is tested; lives as long as the fake_disk */
    struct chr_random random;
    struct fake_disk_faults faults;
    struct fake_disk_counters counters;
    /* Private. */
    struct fake_names seen;      /* the directory as the running system sees it */
    struct fake_names durable;   /* as the platter has it … */
    struct fake_change *journal; /* … and what was changed since */
    size_t journal_count, journal_capacity;
    struct fake_inode **handles; /* by handle; NULL: closed */
    size_t handles_count, handles_capacity;
    struct fake_inode *inodes; /* all, linked */
    bool off;
};

void fake_disk_open(struct fake_disk *disk, uint64_t seed);
void fake_disk_close(struct fake_disk *disk);

/* From now on every call fails and changes nothing: the moment of a crash. The user of the disk can
 * be torn down in peace (its close functions may try to write). */
void fake_disk_off(struct fake_disk *disk);
/* Power failed: unsynced sectors and names are kept or lost by the seed. Handles are void. */
void fake_disk_crash(struct fake_disk *disk);
/* The process died, the system lives: the page cache keeps everything. Handles are void. */
void fake_disk_kill(struct fake_disk *disk);

/* Looking and damaging, for tests; `name` as the running system sees it. */
bool fake_disk_exists(const struct fake_disk *disk, const char *name);
uint64_t fake_disk_size(const struct fake_disk *disk, const char *name); /* 0: absent */
void fake_disk_peek(const struct fake_disk *disk, const char *name, uint64_t offset, void *out,
                    size_t len);
/* Changes bytes on platter and in cache at once, past all bookkeeping; grows the file. */
void fake_disk_poke(struct fake_disk *disk, const char *name, uint64_t offset, const void *bytes,
                    size_t len);
void fake_disk_flip_bit(struct fake_disk *disk, const char *name, uint64_t offset, unsigned bit);
/* Takes a file away, durably. */
void fake_disk_remove(struct fake_disk *disk, const char *name);
/* A copy with its own future; faults and random state are copied too. Handles are not. */
void fake_disk_clone(struct fake_disk *to, const struct fake_disk *from);
/* A hash of all names and bytes that the running system sees: did anything change? */
uint64_t fake_disk_hash(const struct fake_disk *disk);
uint64_t fake_disk_used(const struct fake_disk *disk);

#endif
