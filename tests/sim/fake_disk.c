/* tests/sim/fake_disk.c: see fake_disk.h.
 *
 * An inode has the bytes that are seen and the bytes that are durable, and per sector one state:
 * clean, dirty (written since the last sync) or lost (a failed sync dropped it: seen, not durable,
 * and no sync will write it until it is written again). */
#include "tests/sim/fake_disk.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/crc32c.h"

enum sector_state { CLEAN, DIRTY, LOST };

struct fake_inode {
    struct fake_inode *next;
    uint8_t *seen, *durable; /* capacity bytes each; durable beyond durable_bytes is zero */
    uint8_t *sectors;        /* enum sector_state each */
    uint64_t bytes;          /* length as seen */
    uint64_t durable_bytes;
    uint64_t capacity;
    uint64_t mark; /* for garbage collection and cloning */
    struct fake_inode *twin;
};

static void *must(void *ptr)
{
    CHR_ASSERT(ptr != NULL);
    return ptr;
}

/* ---- inodes ---- */

static struct fake_inode *inode_new(struct fake_disk *disk)
{
    struct fake_inode *inode = must(calloc(1, sizeof *inode));
    inode->next = disk->inodes;
    disk->inodes = inode;
    return inode;
}

static void inode_free(struct fake_inode *inode)
{
    free(inode->seen);
    free(inode->durable);
    free(inode->sectors);
    free(inode);
}

static void inode_grow(struct fake_inode *inode, uint64_t bytes)
{
    if (bytes <= inode->capacity)
        return;
    uint64_t capacity = chr_round_up(CHR_MAX(bytes, inode->capacity * 2), FAKE_DISK_SECTOR);
    inode->seen = must(realloc(inode->seen, capacity));
    inode->durable = must(realloc(inode->durable, capacity));
    inode->sectors = must(realloc(inode->sectors, capacity / FAKE_DISK_SECTOR));
    memset(inode->seen + inode->capacity, 0, capacity - inode->capacity);
    memset(inode->durable + inode->capacity, 0, capacity - inode->capacity);
    memset(inode->sectors + inode->capacity / FAKE_DISK_SECTOR, CLEAN,
           (capacity - inode->capacity) / FAKE_DISK_SECTOR);
    inode->capacity = capacity;
}

/* ---- names ---- */

static struct fake_name *names_find(const struct fake_names *names, const char *name)
{
    for (size_t i = 0; i < names->count; i++)
        if (strcmp(names->items[i].name, name) == 0)
            return &names->items[i];
    return NULL;
}

static void names_set(struct fake_names *names, const char *name, struct fake_inode *inode)
{
    struct fake_name *at = names_find(names, name);
    if (!at) {
        if (names->count == names->capacity) {
            names->capacity = names->capacity ? names->capacity * 2 : 8;
            names->items = must(realloc(names->items, names->capacity * sizeof *names->items));
        }
        at = &names->items[names->count++];
        snprintf(at->name, sizeof at->name, "%s", name);
    }
    at->inode = inode;
}

static void names_remove(struct fake_names *names, const char *name)
{
    struct fake_name *at = names_find(names, name);
    if (at)
        *at = names->items[--names->count];
}

static struct fake_names names_copy(const struct fake_names *names)
{
    struct fake_names copy = {.count = names->count, .capacity = names->count};
    if (names->count) {
        copy.items = must(malloc(names->count * sizeof *copy.items));
        memcpy(copy.items, names->items, names->count * sizeof *copy.items);
    }
    return copy;
}

/* Carries a change out; false when the picture has not the file it is about (its creation was
 * lost). */
static bool names_change(struct fake_names *names, const struct fake_change *change)
{
    if (change->from[0]) {
        const struct fake_name *at = names_find(names, change->from);
        if (!at || at->inode != change->inode)
            return false;
        names_remove(names, change->from);
    }
    if (change->to[0])
        names_set(names, change->to, change->inode);
    return true;
}

/* A change that is seen at once, and durable with the next sync_dir. */
static void change_names(struct fake_disk *disk, const char *from, const char *to,
                         struct fake_inode *inode)
{
    if (disk->journal_count == disk->journal_capacity) {
        disk->journal_capacity = disk->journal_capacity ? disk->journal_capacity * 2 : 8;
        disk->journal =
            must(realloc(disk->journal, disk->journal_capacity * sizeof *disk->journal));
    }
    struct fake_change *change = &disk->journal[disk->journal_count++];
    *change = (struct fake_change){.inode = inode};
    snprintf(change->from, sizeof change->from, "%s", from);
    snprintf(change->to, sizeof change->to, "%s", to);
    bool done = names_change(&disk->seen, change);
    CHR_ASSERT(done);
}

static void names_settle(struct fake_disk *disk)
{
    free(disk->durable.items);
    disk->durable = names_copy(&disk->seen);
    disk->journal_count = 0;
}

/* Frees the files that no name and no handle reaches. */
static void collect(struct fake_disk *disk)
{
    for (struct fake_inode *i = disk->inodes; i; i = i->next)
        i->mark = 0;
    for (size_t i = 0; i < disk->seen.count; i++)
        disk->seen.items[i].inode->mark = 1;
    for (size_t i = 0; i < disk->durable.count; i++)
        disk->durable.items[i].inode->mark = 1;
    for (size_t i = 0; i < disk->journal_count; i++)
        disk->journal[i].inode->mark = 1;
    for (size_t i = 0; i < disk->handles_count; i++)
        if (disk->handles[i])
            disk->handles[i]->mark = 1;
    for (struct fake_inode **at = &disk->inodes; *at;) {
        struct fake_inode *inode = *at;
        if (inode->mark) {
            at = &inode->next;
        } else {
            *at = inode->next;
            inode_free(inode);
        }
    }
}

/* ---- faults ---- */

static bool chance(struct fake_disk *disk, uint32_t of_10000)
{
    return of_10000 && chr_random_below(&disk->random, 10000) < of_10000;
}

/* True: this call fails with *err, and nothing happens. */
static bool fault(struct fake_disk *disk, uint32_t eio_chance, chr_err *err)
{
    *err = CHR_OK;
    if (disk->off) {
        *err = CHR_EIO;
        return true;
    }
    if (disk->faults.nth && --disk->faults.nth == 0)
        *err = disk->faults.nth_error;
    else if (chance(disk, eio_chance))
        *err = CHR_EIO;
    if (*err && disk->faults.nth_off)
        disk->off = true;
    disk->counters.failed += *err != CHR_OK;
    return *err != CHR_OK;
}

uint64_t fake_disk_used(const struct fake_disk *disk)
{
    uint64_t used = 0;
    for (const struct fake_inode *i = disk->inodes; i; i = i->next)
        used += i->bytes;
    return used;
}

static struct fake_inode *inode_of(struct fake_disk *disk, int handle)
{
    CHR_ASSERT(handle >= 0 && (size_t)handle < disk->handles_count);
    CHR_ASSERT(disk->handles[handle] != NULL);
    return disk->handles[handle];
}

/* ---- struct raft_io ---- */

static chr_err fake_open(void *ctx, const char *name, bool create, int *handle)
{
    struct fake_disk *disk = ctx;
    chr_err err;
    disk->counters.opens++;
    if (fault(disk, create ? disk->faults.dir_eio : 0, &err))
        return err;
    struct fake_name *at = names_find(&disk->seen, name);
    if (!at && !create)
        return CHR_ENOTFOUND;
    struct fake_inode *inode = at ? at->inode : inode_new(disk);
    if (!at) {
        change_names(disk, "", name, inode);
        disk->counters.dir_changes++;
    }
    size_t i = 0;
    while (i < disk->handles_count && disk->handles[i])
        i++;
    if (i == disk->handles_count) {
        if (disk->handles_count == disk->handles_capacity) {
            disk->handles_capacity = disk->handles_capacity ? disk->handles_capacity * 2 : 8;
            disk->handles =
                must(realloc(disk->handles, disk->handles_capacity * sizeof *disk->handles));
        }
        disk->handles_count++;
    }
    disk->handles[i] = inode;
    *handle = (int)i;
    return CHR_OK;
}

static void fake_close(void *ctx, int handle)
{
    struct fake_disk *disk = ctx;
    if ((size_t)handle < disk->handles_count) /* void after a crash */
        disk->handles[handle] = NULL;
}

static chr_err fake_pread(void *ctx, int handle, void *buf, size_t len, uint64_t offset,
                          size_t *got)
{
    struct fake_disk *disk = ctx;
    chr_err err;
    *got = 0;
    disk->counters.reads++;
    if (fault(disk, disk->faults.read_eio, &err))
        return err;
    const struct fake_inode *inode = inode_of(disk, handle);
    if (offset >= inode->bytes)
        return CHR_OK;
    *got = (size_t)CHR_MIN((uint64_t)len, inode->bytes - offset);
    memcpy(buf, inode->seen + offset, *got);
    return CHR_OK;
}

static chr_err fake_pwrite(void *ctx, int handle, const void *buf, size_t len, uint64_t offset)
{
    struct fake_disk *disk = ctx;
    chr_err err;
    disk->counters.writes++;
    if (disk->off)
        return CHR_EIO;
    struct fake_inode *inode = inode_of(disk, handle);
    bool failed = fault(disk, disk->faults.write_eio, &err);
    if (!failed && chance(disk, disk->faults.write_enospc)) {
        disk->counters.failed++;
        err = CHR_ENOSPC;
    }
    if (err) /* after a failure any part may have been written */
        len = (size_t)chr_random_below(&disk->random, len + 1);
    if (disk->faults.capacity && offset + len > inode->bytes) {
        uint64_t used = fake_disk_used(disk);
        uint64_t room = disk->faults.capacity > used ? disk->faults.capacity - used : 0;
        if (offset + len - inode->bytes > room) {
            len = inode->bytes + room > offset ? (size_t)(inode->bytes + room - offset) : 0;
            err = err ? err : CHR_ENOSPC;
            disk->counters.failed++;
        }
    }
    if (len) {
        inode_grow(inode, offset + len);
        memcpy(inode->seen + offset, buf, len);
        for (uint64_t s = offset / FAKE_DISK_SECTOR; s <= (offset + len - 1) / FAKE_DISK_SECTOR;
             s++)
            inode->sectors[s] = DIRTY;
        inode->bytes = CHR_MAX(inode->bytes, offset + len);
        disk->counters.write_bytes += len;
    }
    return err;
}

static void sector_settle(struct fake_inode *inode, uint64_t sector)
{
    memcpy(inode->durable + sector * FAKE_DISK_SECTOR, inode->seen + sector * FAKE_DISK_SECTOR,
           FAKE_DISK_SECTOR);
    inode->sectors[sector] = CLEAN;
}

static chr_err fake_sync(void *ctx, int handle)
{
    struct fake_disk *disk = ctx;
    chr_err err;
    disk->counters.syncs++;
    struct fake_inode *inode = inode_of(disk, handle);
    if (disk->off)
        return CHR_EIO;
    if (disk->faults.sync_lies)
        return CHR_OK;
    bool failed = fault(disk, disk->faults.sync_eio, &err);
    for (uint64_t s = 0; s < inode->capacity / FAKE_DISK_SECTOR; s++) {
        if (inode->sectors[s] != DIRTY)
            continue;
        if (failed && chr_random_below(&disk->random, 2) == 0)
            inode->sectors[s] = LOST;
        else
            sector_settle(inode, s);
    }
    if (!failed)
        inode->durable_bytes = inode->bytes;
    return err;
}

static chr_err fake_size(void *ctx, int handle, uint64_t *bytes)
{
    *bytes = inode_of(ctx, handle)->bytes;
    return CHR_OK;
}

static chr_err fake_truncate(void *ctx, int handle, uint64_t bytes)
{
    struct fake_disk *disk = ctx;
    chr_err err;
    if (fault(disk, disk->faults.write_eio, &err))
        return err;
    struct fake_inode *inode = inode_of(disk, handle);
    inode_grow(inode, bytes);
    if (bytes < inode->bytes) {
        memset(inode->seen + bytes, 0, inode->capacity - bytes);
        for (uint64_t s = bytes / FAKE_DISK_SECTOR; s < inode->capacity / FAKE_DISK_SECTOR; s++)
            inode->sectors[s] = DIRTY;
    }
    inode->bytes = bytes;
    return CHR_OK;
}

static chr_err fake_rename(void *ctx, const char *from, const char *to)
{
    struct fake_disk *disk = ctx;
    chr_err err;
    disk->counters.dir_changes++;
    if (fault(disk, disk->faults.dir_eio, &err))
        return err;
    struct fake_name *at = names_find(&disk->seen, from);
    if (!at)
        return CHR_ENOTFOUND;
    change_names(disk, from, to, at->inode);
    collect(disk);
    return CHR_OK;
}

static chr_err fake_unlink(void *ctx, const char *name)
{
    struct fake_disk *disk = ctx;
    chr_err err;
    disk->counters.dir_changes++;
    if (fault(disk, disk->faults.dir_eio, &err))
        return err;
    const struct fake_name *at = names_find(&disk->seen, name);
    if (!at)
        return CHR_ENOTFOUND;
    change_names(disk, name, "", at->inode);
    collect(disk);
    return CHR_OK;
}

static chr_err fake_sync_dir(void *ctx)
{
    struct fake_disk *disk = ctx;
    chr_err err;
    disk->counters.dir_syncs++;
    if (disk->faults.sync_lies && !disk->off)
        return CHR_OK;
    if (fault(disk, disk->faults.dir_eio, &err))
        return err;
    names_settle(disk);
    collect(disk);
    return CHR_OK;
}

static chr_err fake_list(void *ctx, void (*each)(void *arg, const char *name), void *arg)
{
    struct fake_disk *disk = ctx;
    chr_err err;
    if (fault(disk, disk->faults.read_eio, &err))
        return err;
    for (size_t i = 0; i < disk->seen.count; i++)
        each(arg, disk->seen.items[i].name);
    return CHR_OK;
}

static chr_err fake_free_bytes(void *ctx, uint64_t *bytes)
{
    const struct fake_disk *disk = ctx;
    uint64_t used = fake_disk_used(disk);
    *bytes = disk->faults.capacity == 0     ? UINT64_MAX
             : disk->faults.capacity > used ? disk->faults.capacity - used
                                            : 0;
    return CHR_OK;
}

/* ---- life and death ---- */

static struct raft_io make_io(struct fake_disk *disk)
{
    return (struct raft_io){
        .open = fake_open,
        .close = fake_close,
        .pread = fake_pread,
        .pwrite = fake_pwrite,
        .sync = fake_sync,
        .size = fake_size,
        .truncate = fake_truncate,
        .rename = fake_rename,
        .unlink = fake_unlink,
        .sync_dir = fake_sync_dir,
        .list = fake_list,
        .free_bytes = fake_free_bytes,
        .ctx = disk,
    };
}

void fake_disk_open(struct fake_disk *disk, uint64_t seed)
{
    *disk = (struct fake_disk){.random = {.state = seed}};
    disk->io = make_io(disk);
}

void fake_disk_close(struct fake_disk *disk)
{
    free(disk->journal);
    free(disk->durable.items);
    free(disk->seen.items);
    free(disk->handles);
    for (struct fake_inode *i = disk->inodes, *next; i; i = next) {
        next = i->next;
        inode_free(i);
    }
    *disk = (struct fake_disk){0};
}

static void tear(struct fake_disk *disk, struct fake_inode *inode, uint64_t sector)
{
    uint8_t *old = inode->durable + sector * FAKE_DISK_SECTOR;
    const uint8_t *new = inode->seen + sector *FAKE_DISK_SECTOR;
    if (chance(disk, disk->faults.garbage)) {
        for (size_t i = 0; i < FAKE_DISK_SECTOR; i++)
            if (old[i] != new[i])
                old[i] = (uint8_t)chr_random_u64(&disk->random);
    } else if (chr_random_below(&disk->random, 2)) {
        memcpy(old, new, FAKE_DISK_SECTOR);
    }
}

void fake_disk_off(struct fake_disk *disk)
{
    disk->off = true;
}

void fake_disk_crash(struct fake_disk *disk)
{
    size_t kept = (size_t)chr_random_below(&disk->random, disk->journal_count + 1);
    for (size_t i = 0; i < disk->journal_count; i++)
        if (disk->faults.names_unordered ? chr_random_below(&disk->random, 2) : i < kept)
            (void)names_change(&disk->durable, &disk->journal[i]);
    disk->journal_count = 0;
    free(disk->seen.items);
    disk->seen = names_copy(&disk->durable);
    fake_disk_kill(disk);
    for (struct fake_inode *inode = disk->inodes; inode; inode = inode->next) {
        /* Some crashes lose nothing or everything: the extremes are the interesting ones. */
        uint64_t mood = chr_random_below(&disk->random, 4);
        for (uint64_t s = 0; s < inode->capacity / FAKE_DISK_SECTOR; s++) {
            if (inode->sectors[s] == DIRTY && mood != 0) {
                if (mood == 1)
                    sector_settle(inode, s);
                else
                    tear(disk, inode, s);
            }
            inode->sectors[s] = CLEAN;
        }
        /* The length is metadata: old or new. */
        if (inode->bytes != inode->durable_bytes && chr_random_below(&disk->random, 2))
            inode->durable_bytes = inode->bytes;
        inode->bytes = inode->durable_bytes;
        if (inode->capacity) {
            memset(inode->durable + inode->bytes, 0, inode->capacity - inode->bytes);
            memcpy(inode->seen, inode->durable, inode->capacity);
        }
    }
}

void fake_disk_kill(struct fake_disk *disk)
{
    for (size_t i = 0; i < disk->handles_count; i++)
        disk->handles[i] = NULL;
    disk->handles_count = 0;
    disk->off = false;
    collect(disk);
}

/* ---- looking and damaging ---- */

static struct fake_inode *named(const struct fake_disk *disk, const char *name)
{
    struct fake_name *at = names_find(&disk->seen, name);
    CHR_ASSERT(at != NULL);
    return at->inode;
}

bool fake_disk_exists(const struct fake_disk *disk, const char *name)
{
    return names_find(&disk->seen, name) != NULL;
}

uint64_t fake_disk_size(const struct fake_disk *disk, const char *name)
{
    struct fake_name *at = names_find(&disk->seen, name);
    return at ? at->inode->bytes : 0;
}

void fake_disk_peek(const struct fake_disk *disk, const char *name, uint64_t offset, void *out,
                    size_t len)
{
    const struct fake_inode *inode = named(disk, name);
    CHR_ASSERT(offset + len <= inode->bytes);
    memcpy(out, inode->seen + offset, len);
}

void fake_disk_poke(struct fake_disk *disk, const char *name, uint64_t offset, const void *bytes,
                    size_t len)
{
    if (!fake_disk_exists(disk, name)) {
        change_names(disk, "", name, inode_new(disk));
        names_settle(disk);
    }
    struct fake_inode *inode = named(disk, name);
    inode_grow(inode, offset + len);
    if (len) {
        memcpy(inode->seen + offset, bytes, len);
        memcpy(inode->durable + offset, bytes, len);
    }
    inode->bytes = CHR_MAX(inode->bytes, offset + len);
    inode->durable_bytes = CHR_MAX(inode->durable_bytes, offset + len);
}

void fake_disk_flip_bit(struct fake_disk *disk, const char *name, uint64_t offset, unsigned bit)
{
    struct fake_inode *inode = named(disk, name);
    CHR_ASSERT(offset < inode->bytes);
    inode->seen[offset] ^= (uint8_t)(1u << (bit & 7));
    inode->durable[offset] ^= (uint8_t)(1u << (bit & 7));
}

void fake_disk_remove(struct fake_disk *disk, const char *name)
{
    change_names(disk, name, "", named(disk, name));
    names_settle(disk);
    collect(disk);
}

static struct fake_names names_clone(const struct fake_names *names)
{
    struct fake_names copy = names_copy(names);
    for (size_t i = 0; i < copy.count; i++)
        copy.items[i].inode = copy.items[i].inode->twin;
    return copy;
}

static void *dup_bytes(const void *bytes, size_t len)
{
    return len ? memcpy(must(malloc(len)), bytes, len) : NULL;
}

void fake_disk_clone(struct fake_disk *to, const struct fake_disk *from)
{
    *to = (struct fake_disk){
        .random = from->random, .faults = from->faults, .counters = from->counters};
    to->io = make_io(to);
    for (struct fake_inode *i = from->inodes; i; i = i->next) {
        struct fake_inode *twin = inode_new(to), *next = twin->next;
        *twin = *i;
        twin->next = next;
        twin->seen = dup_bytes(i->seen, i->capacity);
        twin->durable = dup_bytes(i->durable, i->capacity);
        twin->sectors = dup_bytes(i->sectors, i->capacity / FAKE_DISK_SECTOR);
        i->twin = twin;
    }
    to->seen = names_clone(&from->seen);
    to->durable = names_clone(&from->durable);
    to->journal_count = to->journal_capacity = from->journal_count;
    to->journal = dup_bytes(from->journal, from->journal_count * sizeof *to->journal);
    for (size_t i = 0; i < to->journal_count; i++)
        to->journal[i].inode = to->journal[i].inode->twin;
    collect(to);
}

uint64_t fake_disk_hash(const struct fake_disk *disk)
{
    uint64_t sum = 0; /* of per-file hashes: the order of names means nothing */
    for (size_t i = 0; i < disk->seen.count; i++) {
        const struct fake_name *at = &disk->seen.items[i];
        uint32_t name = chr_crc32c(0, at->name, strlen(at->name));
        uint32_t bytes = chr_crc32c(name, at->inode->seen, at->inode->bytes);
        sum += ((uint64_t)name << 32 | bytes) * 0x9e3779b97f4a7c15u + at->inode->bytes;
    }
    return sum;
}
