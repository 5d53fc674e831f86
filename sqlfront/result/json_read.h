/* sqlfront/result/json_read.h: the other direction of our own answers: members of a JSON document,
 * elements of an array, text of a string, without building a tree.
 *
 * For clients of the answers (the CLI, the joiner of parts): the document was written by a node, so
 * what is malformed is simply not found; nothing is ever read past its end. */
#ifndef CHR_SQLFRONT_RESULT_JSON_READ_H
#define CHR_SQLFRONT_RESULT_JSON_READ_H

#include <stdbool.h>

#include "base/buf.h"
#include "base/slice.h"

/* Members of an object or elements of an array, in order. */
struct json_iter {
    chr_slice rest;
    bool object;
    bool ok; /* false: the document broke off or is malformed at this place */
};

/* Value: any text that begins with `{` or `[`; anything else has no members. */
struct json_iter json_iter_of(chr_slice value);
/* false at the end. key: text between the quotes, still escaped; empty in an array. value: as it
 * stands, quotes and brackets included. Both borrowed from the document. */
bool json_next(struct json_iter *iter, chr_slice *key, chr_slice *value);

/* The value of an object's member. False when there is none. */
bool json_member(chr_slice object, const char *key, chr_slice *value);
/* Appends the text a string value stands for (UTF-8); a value that is no string as it stands. */
void json_text(chr_slice value, struct chr_buf *out);

#endif
