/* sqlfront/result/json_join.h: the parts of a JSON answer (result/writer.h) as one document again.
 *
 *     {"columns":[…],"rows":[a,b],"part":1,"last":false}
 *     {"columns":[…],"rows":[c],"row_count":3,"elapsed_us":9,"part":2,"last":true}
 *  ▶  {"columns":[…],"rows":[a,b,c],"row_count":3,"elapsed_us":9}
 *
 * Streams: a part is handed on before the next one is looked at. An answer that broke off ends with
 * the member "error", so that nobody takes it for whole. */
#ifndef CHR_SQLFRONT_RESULT_JSON_JOIN_H
#define CHR_SQLFRONT_RESULT_JSON_JOIN_H

#include <stdbool.h>

#include "base/buf.h"
#include "base/slice.h"

struct json_join {
    bool began;    /* the opening brace is out */
    bool in_rows;  /* so is "rows":[ */
    bool any_rows; /* and a row: the next one needs a comma */
    bool any_members;
};

/* Appends what part adds to the document; zeroed join before the first one. first && last: the
 * answer is whole, its bytes are passed on. */
void json_join_part(struct json_join *join, chr_slice part, bool first, bool last,
                    struct chr_buf *out);

#endif
