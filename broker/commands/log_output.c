/* broker/commands/log_output.c: see log_output.h.
 *
 * Other threads write to the log file's descriptor at any time. So it keeps its number for the life
 * of the process, and another file is put under it with dup3, which is atomic: a line goes whole
 * into the old file or whole into the new one. */
#include "broker/commands/log_output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#include "base/log.h"

static int file_fd = -1;
static bool screen_kept;
static const struct broker_config *preparing; /* between prepare and commit or abort */

static chr_err open_file(const struct broker_config *config, int *fd, struct chr_errmsg *msg)
{
    *fd = -1;
    if (!(config->log_dests & LOG_DEST_FILE))
        return CHR_OK;
    *fd = open(config->log_file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
    if (*fd < 0)
        return chr_fail(msg, CHR_EINVAL, "can't open log file %s: %s", config->log_file,
                        strerror(errno));
    return CHR_OK;
}

/* fd: of config's log file, -1: it has none. */
static void apply(const struct broker_config *config, int fd)
{
    if (fd >= 0 && file_fd >= 0) {
        (void)dup3(fd, file_fd, O_CLOEXEC);
        close(fd);
    } else if (fd >= 0) {
        file_fd = fd;
    }
    chr_log_set_copy(config->log_dests & LOG_DEST_FILE ? file_fd : -1);
    chr_log_set_syslog(config->log_dests & LOG_DEST_SYSLOG);
    if (!screen_kept) {
        uint32_t dests = config->log_dests;
        int screen = !dests || dests & LOG_DEST_STDERR ? STDERR_FILENO
                     : dests & LOG_DEST_STDOUT         ? STDOUT_FILENO
                                                       : -1;
        chr_log_set_output(screen, CHR_LOG_DEBUG, -1);
    }
    chr_log_set_format(config->log_format);
    chr_log_set_timestamp(config->log_timestamp, config->log_timestamp_format);
    if (config->log_types)
        chr_log_set_levels(config->log_types & LOG_TYPES_ALL);
    else
        chr_log_set_level(config->log_level);
}

chr_err log_output_start(const struct broker_config *config, bool keep_screen,
                         struct chr_errmsg *msg)
{
    int fd;
    screen_kept = keep_screen;
    chr_err err = open_file(config, &fd, msg);
    if (err)
        return err;
    /* Once: its facility needs a restart, since other threads may be in syslog(). */
    if (config->log_facility == LOG_FACILITY_DAEMON)
        openlog("chronos", LOG_PID, LOG_DAEMON);
    else
        openlog("chronos", LOG_PID, LOG_LOCAL0 + (config->log_facility << 3));
    apply(config, fd);
    return CHR_OK;
}

static chr_err prepare(void *ctx, const struct broker_config *next, void **prepared,
                       struct chr_errmsg *msg)
{
    (void)ctx;
    int fd;
    chr_err err = open_file(next, &fd, msg);
    *prepared = (void *)(intptr_t)fd;
    preparing = next;
    return err;
}

static void commit(void *ctx, void *prepared)
{
    (void)ctx;
    apply(preparing, (int)(intptr_t)prepared);
}

static void give_up(void *ctx, void *prepared)
{
    (void)ctx;
    if ((intptr_t)prepared >= 0)
        close((int)(intptr_t)prepared);
}

const struct reload_part log_output_reload = {"log", NULL, prepare, commit, give_up};

void log_output_stop(void)
{
    chr_log_set_timestamp(true, NULL);
    if (!screen_kept)
        chr_log_set_output(STDERR_FILENO, CHR_LOG_DEBUG, -1);
}
