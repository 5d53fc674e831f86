/* sqlfront/sqlstate.c: the door between chr_err and SQLSTATE: nowhere else is one made of the
 * other.
 */
#include <stdarg.h>
#include <stdio.h>

#include "sqlfront/internal.h"

const char *sql_sqlstate_of(chr_err err)
{
    switch (err) {
    case CHR_OK:
        return "00000";
    case CHR_ENOMEM:
        return "53200"; /* out_of_memory */
    case CHR_ENOSPC:
        return "53100"; /* disk_full */
    case CHR_EFULL:
    case CHR_EBUSY:
        return "53300"; /* too_many_connections: overloaded */
    case CHR_ETOOBIG:
        return "54000"; /* program_limit_exceeded */
    case CHR_EACCES:
        return "42501"; /* insufficient_privilege */
    case CHR_ETIMEDOUT:
    case CHR_ECLOSED:
    case CHR_EDOUBT:
        return "08007"; /* transaction_resolution_unknown */
    case CHR_ECANCELLED:
        return "57014"; /* query_canceled */
    case CHR_EDUPKEY:
        return "23505"; /* unique_violation */
    case CHR_ENOTNULL:
        return "23502"; /* not_null_violation */
    case CHR_ECONFLICT:
        return "40001"; /* serialization_failure */
    case CHR_EEXIST:
        return "42P07"; /* duplicate_table */
    case CHR_ENOTFOUND:
        return "42P01"; /* undefined_table */
    case CHR_ECORRUPT:
        return "XX001"; /* data_corrupted */
    case CHR_EIO:
        return "58030"; /* io_error */
    case CHR_ERANGE:
        return "22003"; /* numeric_value_out_of_range */
    case CHR_ETYPE:
        return "42804"; /* datatype_mismatch */
    case CHR_EUNSUPPORTED:
        return "0A000"; /* feature_not_supported */
    case CHR_EINVAL:
        return "42P17"; /* invalid_object_definition: what a catalog refuses */
    default:
        return "XX000"; /* internal_error */
    }
}

void sql_error_set(struct sql_error *error, const char *sqlstate, uint32_t position,
                   const char *format, ...)
{
    memset(error, 0, sizeof *error);
    memcpy(error->sqlstate, sqlstate, 5);
    error->position = position;
    va_list args;
    va_start(args, format);
    if (vsnprintf(error->message, sizeof error->message, format, args) < 0)
        error->message[0] = '\0';
    va_end(args);
}

static const char *sentence_of(chr_err err)
{
    switch (err) {
    case CHR_ENOMEM:
        return "out of memory";
    case CHR_ENOSPC:
        return "the disk is full; nothing was written, try again when there is room";
    case CHR_EFULL:
    case CHR_EBUSY:
        return "the node is overloaded; nothing was done, try again later";
    case CHR_ETIMEDOUT:
    case CHR_ECLOSED:
    case CHR_EDOUBT:
        return "the outcome is unknown: the statement may or may not have been applied";
    case CHR_ECANCELLED:
        return "canceling statement due to user request";
    case CHR_ECONFLICT:
        return "could not serialize access due to a concurrent change";
    default:
        return chr_strerror(err);
    }
}

bool sql__fail_err(struct sql_query *q, chr_err err, const struct chr_errmsg *msg)
{
    if (q->failed)
        return false;
    const char *text = msg && msg->text[0] ? msg->text : sentence_of(err);
    sql__fail(q, sql_sqlstate_of(err), SQL_NO_POS, "%s", text);
    q->err = err;
    return false;
}

void sql_applied_from(const struct db_apply_result *result, struct sql_applied *out)
{
    uint64_t index = out->index;
    memset(out, 0, sizeof *out);
    out->index = index;
    out->err = result->err;
    for (uint32_t i = 0; i < result->guards_count; i++) {
        if (result->gone && db_bit_get(result->gone, i))
            out->err = CHR_ECLOSED; /* the session it came from is another one now */
        else if (result->duplicates && db_bit_get(result->duplicates, i))
            out->err = CHR_EEXIST;
    }
    if (out->err == CHR_EEXIST)
        return; /* R2: it was done before; what its operations say now is of no interest */
    for (uint32_t i = 0; i < result->ops_count; i++) {
        const struct db_op_result *op = &result->ops[i];
        if (!op->err)
            out->rows += op->rows;
        if (op->err && op->err != CHR_ECANCELLED && !out->op_err) {
            out->op_err = op->err;
            size_t n = CHR_MIN(op->detail.len, sizeof out->detail - 1);
            while (n < op->detail.len && n > 0 && (op->detail.ptr[n] & 0xc0) == 0x80)
                n--;
            if (n)
                memcpy(out->detail, op->detail.ptr, n);
            out->detail[n] = '\0';
        }
    }
}
