/* broker/admin/snapshot.c: GET /snapshot: a backup, as its parts are made.
 *
 *     worker: checkpoint, pin ─▶ part 0 … parts - 1, two at a time ─▶ admin thread: read_chunk
 *
 * A thread of its own for each, at most ADMIN_SNAPSHOTS_MAX: a checkpoint and the copying of small
 * records may take seconds, and the reader may be slow. It holds two parts at most. The first part
 * is made before the answer begins, so that what fails early has a status; what fails later breaks
 * the transfer off, and the file says by itself that it is not whole. */
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "broker/admin/internal.h"
#include "broker/checkpointer.h"
#include "broker/snapshot_pin.h"

struct snapshot_work {
    struct admin_request *request;
    struct snapshot_place *place; /* in request->admin->snapshots */
    struct chr_buf parts[2];
    uint64_t ready; /* parts made, ever; under request->lock like all below */
    uint64_t taken; /* parts sent */
    size_t offset;  /* in the part that is being sent */
    uint64_t count; /* parts there are; 0: not known yet */
    bool ended;     /* nobody waits for it any more */
    bool failed;
    chr_err err;
    struct chr_errmsg msg;
    pthread_cond_t changed;
};

/* ---- Worker -----------------------------------------------------------------------------------
 */

static chr_err pin(struct admin *admin, db_snapshot **out, struct chr_errmsg *msg)
{
    struct broker_node *node = admin->node;
    struct checkpointer *cp = atomic_load(&node->checkpointer);
    chr_err err = cp ? checkpointer_request(cp) : CHR_ECLOSED;
    if (err)
        return chr_fail(msg, err, "the checkpoint before it failed: %s", chr_strerror(err));
    const struct snapshot_pin_options options = {
        .db = node->db, .log = node->log, .dir = &node->dir};
    return snapshot_pin(&options, out, msg);
}

/* Waits for a free place of the two; false: nobody wants more. */
static bool wait_for_room(struct snapshot_work *work)
{
    struct admin_request *request = work->request;
    pthread_mutex_lock(&request->lock);
    while (work->ready - work->taken == CHR_COUNT_OF(work->parts) && !work->ended)
        pthread_cond_wait(&work->changed, &request->lock);
    bool wanted = !work->ended;
    pthread_mutex_unlock(&request->lock);
    return wanted;
}

static void made(struct snapshot_work *work, uint64_t count)
{
    pthread_mutex_lock(&work->request->lock);
    work->count = count;
    work->ready++;
    pthread_mutex_unlock(&work->request->lock);
    admin__wake(work->request);
}

static chr_err make_parts(struct snapshot_work *work, db_snapshot *snapshot, struct chr_errmsg *msg)
{
    uint64_t count = db_snapshot_info(snapshot)->parts;
    for (uint64_t i = 0; i < count; i++) {
        if (!wait_for_room(work))
            return CHR_ECANCELLED;
        chr_err err = db_snapshot_part(snapshot, i, &work->parts[i % 2], msg);
        if (err)
            return err;
        made(work, count);
    }
    return CHR_OK;
}

static void *worker(void *arg)
{
    struct snapshot_work *work = arg;
    struct admin_request *request = work->request;
    struct chr_errmsg msg = {{0}};
    db_snapshot *snapshot = NULL;
    pthread_setname_np(pthread_self(), "snapshot");
    chr_err err = pin(request->admin, &snapshot, &msg);
    if (!err) {
        chr_log_info("node", "snapshot", CHR_KV_U("index", db_snapshot_info(snapshot)->index),
                     CHR_KV_U("parts", db_snapshot_info(snapshot)->parts),
                     CHR_KV_U("bytes", db_snapshot_info(snapshot)->bytes));
        err = make_parts(work, snapshot, &msg);
    }
    if (err && err != CHR_ECANCELLED)
        chr_log_error("node", "snapshot failed", CHR_KV_C("detail", msg.text));
    db_snapshot_end(snapshot);
    pthread_mutex_lock(&request->lock);
    work->err = err;
    work->msg = msg;
    work->failed = err != CHR_OK;
    pthread_mutex_unlock(&request->lock);
    admin__wake(request);
    atomic_store(&work->place->finished, true);
    admin__unref(request);
    return NULL;
}

/* ---- Admin thread -----------------------------------------------------------------------------
 */

static void refuse(struct admin_request *request, unsigned status, const char *sqlstate,
                   const char *text)
{
    struct sql_error error;
    sql_error_set(&error, sqlstate, 0, "%s", text);
    admin__reply_error(request, status, &error);
}

/* A free place; those whose thread has finished are free. NULL: none. */
static struct snapshot_place *find_place(struct admin *admin)
{
    for (size_t i = 0; i < CHR_COUNT_OF(admin->snapshots); i++) {
        struct snapshot_place *place = &admin->snapshots[i];
        if (place->used && atomic_load(&place->finished)) {
            pthread_join(place->thread, NULL);
            place->used = false;
        }
        if (!place->used)
            return place;
    }
    return NULL;
}

void admin__snapshots_join(struct admin *admin)
{
    for (size_t i = 0; i < CHR_COUNT_OF(admin->snapshots); i++) {
        if (admin->snapshots[i].used)
            pthread_join(admin->snapshots[i].thread, NULL);
        admin->snapshots[i].used = false;
    }
}

/* Signals are the main thread's business. */
static bool run(struct snapshot_place *place, struct snapshot_work *work)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    atomic_store(&place->finished, false);
    place->used = pthread_create(&place->thread, NULL, worker, work) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return place->used;
}

/* False: it was refused, and answered. */
static bool start(struct admin_request *request)
{
    struct snapshot_place *place = find_place(request->admin);
    if (!place) {
        refuse(request, MHD_HTTP_SERVICE_UNAVAILABLE, "53300",
               "other snapshots are being made; try again later");
        return false;
    }
    struct snapshot_work *work = calloc(1, sizeof *work);
    if (!work) {
        refuse(request, MHD_HTTP_SERVICE_UNAVAILABLE, "53200", "out of memory");
        return false;
    }
    work->request = request;
    work->place = place;
    pthread_cond_init(&work->changed, NULL);
    for (size_t i = 0; i < CHR_COUNT_OF(work->parts); i++)
        chr_buf_init(&work->parts[i], DB_SNAPSHOT_PART_BYTES_MAX);
    request->work = work;
    admin__ref(request); /* the worker drops it */
    if (run(place, work))
        return true;
    admin__unref(request);
    refuse(request, MHD_HTTP_SERVICE_UNAVAILABLE, "53200", "can't start a thread");
    return false;
}

static ssize_t read_chunk(void *cls, uint64_t position, char *out, size_t max)
{
    (void)position;
    struct admin_request *request = cls;
    struct snapshot_work *work = request->work;
    ssize_t result = 0;
    pthread_mutex_lock(&request->lock);
    if (work->taken < work->ready) {
        const struct chr_buf *part = &work->parts[work->taken % 2];
        size_t n = CHR_MIN(max, part->len - work->offset);
        memcpy(out, part->ptr + work->offset, n);
        work->offset += n;
        if (work->offset == part->len) {
            work->offset = 0;
            work->taken++;
            pthread_cond_signal(&work->changed);
        }
        result = (ssize_t)n;
    } else if (work->taken == work->count) {
        result = MHD_CONTENT_READER_END_OF_STREAM;
    } else if (work->failed) {
        result = MHD_CONTENT_READER_END_WITH_ERROR;
    }
    pthread_mutex_unlock(&request->lock);
    if (result)
        return result;
    request->suspended = true;
    MHD_suspend_connection(request->connection);
    return 0;
}

static void reply(struct admin_request *request)
{
    struct MHD_Response *response = MHD_create_response_from_callback(
        MHD_SIZE_UNKNOWN, ADMIN_MEMORY_BYTES / 2, read_chunk, request, NULL);
    if (!response)
        return;
    request->streaming = true;
    (void)MHD_add_response_header(response, "Content-Type", "application/octet-stream");
    (void)MHD_add_response_header(response, "Content-Disposition",
                                  "attachment; filename=\"chronos.snap\"");
    (void)MHD_add_response_header(response, "Cache-Control", "no-store");
    request->status = MHD_HTTP_OK;
    (void)MHD_queue_response(request->connection, MHD_HTTP_OK, response);
    MHD_destroy_response(response);
}

bool admin__snapshot(struct admin_request *request)
{
    if (!request->work && !start(request))
        return true;
    struct snapshot_work *work = request->work;
    pthread_mutex_lock(&request->lock);
    bool any = work->ready > 0, failed = work->failed;
    chr_err err = work->err;
    struct chr_errmsg msg = work->msg;
    pthread_mutex_unlock(&request->lock);
    if (any)
        reply(request);
    else if (failed && err == CHR_ENOSPC)
        refuse(request, MHD_HTTP_INSUFFICIENT_STORAGE, "53100", msg.text);
    else if (failed)
        refuse(request, MHD_HTTP_INTERNAL_SERVER_ERROR, "58030", msg.text);
    return any || failed;
}

void admin__snapshot_ended(struct admin_request *request)
{
    struct snapshot_work *work = request->work;
    if (!work)
        return;
    pthread_mutex_lock(&request->lock);
    work->ended = true;
    pthread_cond_signal(&work->changed);
    pthread_mutex_unlock(&request->lock);
}

void admin__snapshot_free(void *arg)
{
    struct snapshot_work *work = arg;
    for (size_t i = 0; i < CHR_COUNT_OF(work->parts); i++)
        chr_buf_free(&work->parts[i]);
    pthread_cond_destroy(&work->changed);
    free(work);
}
