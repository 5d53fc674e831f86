/* broker/snapshot_file.h: a snapshot in a file: its parts, one after the other (docs/formats.md).
 */
#ifndef CHR_BROKER_SNAPSHOT_FILE_H
#define CHR_BROKER_SNAPSHOT_FILE_H

#include "base/buf.h"
#include "db/snapshot.h"

/* -- Writing ------------------------------------------------------------------------------------*/

/* A file that gets its name only when it is whole. */
struct snapshot_writer {
    int fd;
    char path[4096], partial[4096]; /* partial: PATH.partial until then */
    db_snapshot_receiver *receiver; /* looks at what goes by; stores nothing */
    struct chr_buf part;            /* the part that comes */
    uint64_t bytes;                 /* of the parts before */
};
/* CHR_EEXIST: `path` is there already. */
CHR_MUST_USE chr_err snapshot_writer_open(struct snapshot_writer *writer, const char *path,
                                          struct chr_errmsg *msg);
/* Bytes of the file in any portions; each part is verified before it is written. */
CHR_MUST_USE chr_err snapshot_writer_add(struct snapshot_writer *writer, chr_slice bytes,
                                         struct chr_errmsg *msg);
/* It is whole: durable, under its name. */
CHR_MUST_USE chr_err snapshot_writer_finish(struct snapshot_writer *writer, struct chr_errmsg *msg);
/* Without finish before it the partial file goes. */
void snapshot_writer_close(struct snapshot_writer *writer);

/* -- Reading ------------------------------------------------------------------------------------*/

/* Calls each(arg, part, msg) for every part of the file, in order, until it fails; its error, or
 * CHR_EMALFORMED: a byte somewhere that is in no part, or the end in the middle of one. The bytes
 * of parts are whole, their contents are not looked at. msg names file and offset. */
CHR_MUST_USE chr_err snapshot_file_each(const char *path,
                                        chr_err (*each)(void *arg, chr_slice part,
                                                        struct chr_errmsg *msg),
                                        void *arg, struct chr_errmsg *msg);
/* Is all of it there and right? Every checksum, the order, the numbers. info: of the first part;
 * its members are not filled in. */
CHR_MUST_USE chr_err snapshot_file_verify(const char *path, struct db_snapshot_info *info,
                                          struct chr_errmsg *msg);

#endif
