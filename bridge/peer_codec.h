/* bridge/peer_codec.h: messages between nodes as bytes: protobuf for what is said, flat records for
 * the entries (docs/formats.md, "Between nodes"). Pure: any thread. Everything read here comes from
 * a peer that has proved to be one, and is checked all the same; what decodes can be encoded again.
 * Decoding allocates nothing. */
#ifndef CHR_BRIDGE_PEER_CODEC_H
#define CHR_BRIDGE_PEER_CODEC_H

#include "base/buf.h"
#include "base/err.h"
#include "raft/raft.h"

/* The newest entry and message format this program reads. A node writes no newer one than every
 * member knows (rolling upgrade): what came with format F is written only when cluster_format()
 * (broker/cluster.h) has reached F. Each message says in which format it was written.
 *   2   messages of more than 5 MiB (PEER_FORMAT_LARGE) */
#define PEER_FORMAT       2u
#define PEER_FORMAT_LARGE 2u
/* In which raft_message is written: nothing of it has changed since. */
#define PEER_RAFT_FORMAT 1u
_Static_assert(PEER_RAFT_FORMAT <= PEER_FORMAT, "what is written is read");

#define PEER_NAME_BYTES    64u /* with their zeros */
#define PEER_ADDRESS_BYTES 80u

/* How another node is reached. */
struct peer_contact {
    char name[PEER_NAME_BYTES], address[PEER_ADDRESS_BYTES];
};

/* Who a node is and what its disk holds; first on each connection, and again when it changes. */
struct peer_hello {
    uint64_t node, incarnation;
    uint64_t boot;    /* of the process: rises with each start of this data directory (R18) */
    uint64_t cluster; /* 0: empty, no cluster was formed or joined yet (R20) */
    struct raft_members founders;     /* of cluster; count 0 when empty */
    uint32_t format;                  /* the newest it knows; not 0 */
    char version[24];                 /* of the program */
    char name[PEER_NAME_BYTES];       /* --id */
    char address[PEER_ADDRESS_BYTES]; /* where clients and peers reach it: HOST:PORT */
    uint64_t peers_hash; /* of its sorted --peers and itself: all must list the same nodes */
    uint64_t wall_ms;    /* its clock, for the skew that is reported */
    struct raft_members members; /* as it has applied them; count 0: it does not know */
    uint64_t members_index;      /* as of this entry */
    struct peer_contact peers[RAFT_MEMBERS_MAX]; /* other nodes it knows of */
    uint32_t peers_count;
};
/* Appends to out. CHR_ENOMEM, CHR_EFULL: out is as it was. */
CHR_MUST_USE chr_err peer_hello_encode(const struct peer_hello *hello, struct chr_buf *out);
/* Takes any format, or a node could not say that it is newer. CHR_EMALFORMED. */
CHR_MUST_USE chr_err peer_hello_decode(chr_slice bytes, struct peer_hello *out);

/* raft_message without its entries, appended to out. CHR_ENOMEM, CHR_EFULL: out is as it was. */
CHR_MUST_USE chr_err peer_raft_encode(const struct raft_message *message, struct chr_buf *out);
/* CHR_EMALFORMED, CHR_EVERSION (of a newer format). out->entries is NULL. */
CHR_MUST_USE chr_err peer_raft_decode(chr_slice bytes, struct raft_message *out);

/* An append: u32 length of the protobuf, protobuf, then the entries as flat records (32-byte head:
 * u64 term, u64 hlc, u32 length, u8 type, zeros; body; zeros to a multiple of 8). Consecutive from
 * message->index + 1 on. The bodies are not copied here: they go out as parts of peers_send,
 *
 *     peer_append_head, then for each entry peer_entry_head, its bytes, peer_entry_pad */
CHR_MUST_USE chr_err peer_append_head(const struct raft_message *message, struct chr_buf *out);
#define PEER_ENTRY_HEAD_BYTES 32u
void peer_entry_head(const struct raft_entry *entry, uint8_t out[PEER_ENTRY_HEAD_BYTES]);
/* The zeros behind a body of that length; static, perhaps empty. */
chr_slice peer_entry_pad(size_t body_bytes);

/* entries: the caller's; their bytes point into `bytes`, and so do out->entries and its count.
 * CHR_EMALFORMED: also terms that fall or pass the message's, HLCs that do not rise; CHR_EVERSION;
 * CHR_EFULL: more than entries_max. */
CHR_MUST_USE chr_err peer_append_decode(chr_slice bytes, struct raft_message *out,
                                        struct raft_entry *entries, size_t entries_max,
                                        size_t *count);

#endif
