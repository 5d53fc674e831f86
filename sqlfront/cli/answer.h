/* sqlfront/cli/answer.h: the parts of an answer, put together and printed.
 *
 * table, CSV and NDJSON parts follow each other as they are, JSON parts are joined to one document,
 * expanded display (\x) shows a row as a block of `name | value` lines. An error is kept instead of
 * printed: the caller knows where it belongs. */
#ifndef CHR_SQLFRONT_CLI_ANSWER_H
#define CHR_SQLFRONT_CLI_ANSWER_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/buf.h"
#include "base/slice.h"
#include "sqlfront/result/json_join.h"
#include "sqlfront/sql.h"

struct cli_print {
    FILE *out;
    enum sql_format format; /* never DEFAULT */
    bool no_header;         /* CSV: without its header row (the node leaves it out) */
    bool expanded;          /* from JSON, whatever format says */
};

struct cli_answer {
    struct cli_print print;
    struct json_join join;
    struct chr_buf buf;
    uint64_t records; /* expanded: rows printed */
    bool open_line;   /* what was printed did not end its line */
    bool failed;      /* error is set */
    struct sql_error error;
};

void cli_answer_begin(struct cli_answer *answer, const struct cli_print *print);
/* bytes: one part; is_error: the server marked it so (else it is looked at). */
void cli_answer_part(struct cli_answer *answer, chr_slice bytes, bool first, bool last,
                     bool is_error);
/* Ends the last line; frees. failed and error remain. */
void cli_answer_end(struct cli_answer *answer);

/* Which form to ask the server for. */
enum sql_format cli_print_wants(const struct cli_print *print);
const char *cli_format_name(enum sql_format format);

/* A part that tells of an error: the JSON document, or the line `ERROR 42P01: …` of the table form.
 * False when it is neither. */
bool cli_error_read(chr_slice bytes, struct sql_error *error);
/* `ERROR 42P01: message`, one line without control characters. context: the statement, to point
 * into it in further lines (and detail and hint); empty: the one line alone. */
void cli_error_print(FILE *out, const struct sql_error *error, chr_slice context);

#endif
