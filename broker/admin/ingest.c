/* broker/admin/ingest.c: POST /ingest: readings as JSON into the table `readings`.
 *
 *     body ─▶ decoder ─▶ entry ─▶ committer ─▶ applied ─▶ 200 {"rows":n}
 *
 * The same decoder as a publish to sensors/{device_id}, under the same rules: all rows or none; an
 * entry decoded under mappings that changed meanwhile comes back stale and is decoded again (R9).
 * What does not fit is answered 400 with the reason: here is somebody who listens, so nothing goes
 * to chronos_rejects. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/admin/internal.h"
#include "db/op.h"
#include "raft/log.h"

/* Rows of one entry; the rest of DB_ENTRY_BYTES_MAX is for what surrounds them. */
#define ROWS_BYTES_MAX ((size_t)(DB_ENTRY_BYTES_MAX - (64u << 10)))

struct ingest_work {
    struct broker_proposal proposal;
    struct admin_request *request;
    struct db_entry entry;
    size_t rows;
    /* under request->lock */
    bool done;
    chr_err err;
};

static void refuse(struct admin_request *request, unsigned status, const char *sqlstate,
                   const char *text)
{
    struct sql_error error;
    sql_error_set(&error, sqlstate, 0, "%s", text);
    admin__reply_error(request, status, &error);
}

/* Applier, or the committer when the entry can't be committed. */
static void done(struct broker_proposal *proposal, chr_err err,
                 const struct db_apply_result *result)
{
    struct ingest_work *work = CHR_CONTAINER_OF(proposal, struct ingest_work, proposal);
    struct admin_request *request = work->request;
    if (!err && result)
        err = result->err;
    for (uint32_t i = 0; !err && result && i < result->ops_count; i++)
        err = result->ops[i].err;
    pthread_mutex_lock(&request->lock);
    work->done = true;
    work->err = err;
    pthread_mutex_unlock(&request->lock);
    admin__wake(request);
    admin__unref(request);
}

/* The decoder under the mappings of now. */
static chr_err use_mappings(struct admin *admin)
{
    db *database = admin->node->db;
    if (admin->mappings &&
        ingest_mappings_version(admin->mappings) == db_mapping_version_now(database))
        return CHR_OK;
    if (!admin->decoder) {
        chr_err err = ingest_decoder_new(ROWS_BYTES_MAX, &admin->decoder);
        if (err)
            return err;
    }
    const db_catalog *catalog = db_catalog_acquire(database);
    ingest_mappings *fresh = NULL;
    chr_err err = ingest_mappings_compile(catalog, &fresh);
    db_catalog_release(catalog);
    if (!err)
        err = ingest_decoder_use(admin->decoder, fresh);
    if (err) {
        ingest_mappings_release(fresh);
        return err;
    }
    ingest_mappings_release(admin->mappings);
    admin->mappings = fresh;
    return CHR_OK;
}

/* Body to entry. The message says why it is refused. */
static chr_err decode(struct admin_request *request, struct ingest_work *work,
                      struct ingest_reject *why)
{
    struct admin *admin = request->admin;
    ingest_route *route = NULL;
    chr_err err = use_mappings(admin);
    if (!err)
        err =
            ingest_route_make_table(admin->mappings, CHR_LIT("readings"), DB_PAYLOAD_JSON, &route);
    if (err == CHR_ENOTFOUND)
        (void)chr_fail(&why->reason, err, "the table readings was dropped");
    if (!err)
        err = ingest_decode(admin->decoder, route, chr_buf_slice(&request->body),
                            chr_clock_wall_us(admin->node->clock), UINT32_MAX, why);
    ingest_route_free(route);
    if (err)
        return err;
    work->rows = ingest_pending_rows(admin->decoder);
    db_entry_begin(&work->entry, 0, ingest_mappings_version(admin->mappings));
    ingest_flush(admin->decoder, &work->entry);
    return db_entry_end(&work->entry);
}

/* False: it was answered. */
static bool propose(struct admin_request *request, struct ingest_work *work)
{
    struct ingest_reject why = {0};
    chr_err err = decode(request, work, &why);
    if (!err && work->rows == 0) {
        admin__reply(request, MHD_HTTP_OK, "application/json", CHR_LIT("{\"rows\":0}\n"));
        return false;
    }
    if (!err) {
        work->done = false;
        work->proposal = (struct broker_proposal){
            .bytes = chr_buf_slice(&work->entry.bytes),
            .type = RAFT_ENTRY_DATA,
            .done = done,
        };
        admin__ref(request); /* done() drops it */
        err = broker_propose(request->admin->node->committer, &work->proposal);
        if (!err)
            return true;
        admin__unref(request);
    }
    switch (err) {
    case CHR_ENOSPC:
        refuse(request, MHD_HTTP_INSUFFICIENT_STORAGE, "53100", "the disk is full");
        break;
    case CHR_ECLOSED:
        refuse(request, MHD_HTTP_SERVICE_UNAVAILABLE, "57P01", "the node is stopping");
        break;
    case CHR_EFULL:
    case CHR_EBUSY:
        refuse(request, MHD_HTTP_SERVICE_UNAVAILABLE, "53300", "the node is overloaded");
        break;
    case CHR_ENOMEM:
        refuse(request, MHD_HTTP_SERVICE_UNAVAILABLE, "53200", "out of memory");
        break;
    case CHR_ENOTFOUND:
        refuse(request, MHD_HTTP_NOT_FOUND, "42P01", why.reason.text);
        break;
    default:
        refuse(request, err == CHR_ETOOBIG ? MHD_HTTP_CONTENT_TOO_LARGE : MHD_HTTP_BAD_REQUEST,
               sql_sqlstate_of(err), why.reason.text[0] ? why.reason.text : chr_strerror(err));
    }
    return false;
}

static void reply(struct admin_request *request, const struct ingest_work *work)
{
    if (work->err == CHR_OK) {
        char text[64];
        int len = snprintf(text, sizeof text, "{\"rows\":%zu}\n", work->rows);
        admin__reply(request, MHD_HTTP_OK, "application/json", chr_slice_of(text, (size_t)len));
    } else if (work->err == CHR_ENOTFOUND) {
        refuse(request, MHD_HTTP_NOT_FOUND, "42P01", "the table readings was dropped");
    } else {
        const char *sqlstate = sql_sqlstate_of(work->err);
        refuse(request, admin__status_of(sqlstate), sqlstate, chr_strerror(work->err));
    }
}

bool admin__ingest(struct admin_request *request)
{
    struct ingest_work *work = request->work;
    if (!work) {
        work = calloc(1, sizeof *work);
        if (!work) {
            refuse(request, MHD_HTTP_SERVICE_UNAVAILABLE, "53200", "out of memory");
            return true;
        }
        work->request = request;
        db_entry_init(&work->entry, DB_ENTRY_BYTES_MAX);
        request->work = work;
        return !propose(request, work);
    }
    pthread_mutex_lock(&request->lock);
    bool finished = work->done;
    pthread_mutex_unlock(&request->lock);
    if (!finished)
        return false;
    if (work->err == CHR_ESTALE)
        return !propose(request, work); /* R9 */
    reply(request, work);
    return true;
}

void admin__ingest_free(void *arg)
{
    struct ingest_work *work = arg;
    db_entry_free(&work->entry);
    free(work);
}
