#include "broker/commands/process.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <inttypes.h>
#include <linux/capability.h>
#include <pwd.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"

/* ---- User -------------------------------------------------------------------------------------
 */

/* A kernel or container that doesn't grant it takes ports from 1024 on only. */
static void keep_low_ports(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {{0}};
    data[0].effective = data[0].permitted = 1u << CAP_NET_BIND_SERVICE;
    if (syscall(SYS_capset, &header, data))
        chr_log_warning("node", "can't keep the right to bind ports below 1024",
                        CHR_KV_C("error", strerror(errno)));
}

chr_err process_become(const char *user, struct chr_errmsg *msg)
{
    if (!user || geteuid() != 0)
        return CHR_OK;
    errno = 0;
    const struct passwd *entry = getpwnam(user);
    if (!entry && !strcmp(user, "mosquitto"))
        entry = getpwnam("nobody");
    if (!entry)
        return chr_fail(msg, CHR_EINVAL, "user: there is no user %s%s%s", user, errno ? ": " : "",
                        errno ? strerror(errno) : "");
    if (entry->pw_uid == 0)
        return CHR_OK;
    if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) || initgroups(entry->pw_name, entry->pw_gid) ||
        setgid(entry->pw_gid) || setuid(entry->pw_uid))
        return chr_fail(msg, chr_err_from_errno(errno), "user: can't become %s: %s", user,
                        strerror(errno));
    keep_low_ports();
    (void)prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0);
    return CHR_OK;
}

/* ---- Pid file ---------------------------------------------------------------------------------
 */

chr_err process_write_pid(const char *path, struct chr_errmsg *msg)
{
    char text[32];
    int len = snprintf(text, sizeof text, "%ld\n", (long)getpid());
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    bool ok = fd >= 0 && write(fd, text, (size_t)len) == len;
    int saved = errno;
    if (fd >= 0)
        close(fd);
    return ok ? CHR_OK
              : chr_fail(msg, chr_err_from_errno(saved), "can't write pid_file %s: %s", path,
                         strerror(saved));
}

void process_remove_pid(const char *path)
{
    FILE *file = path ? fopen(path, "re") : NULL;
    long pid = 0;
    if (!file)
        return;
    bool ours = fscanf(file, "%ld", &pid) == 1 && pid == (long)getpid();
    fclose(file);
    if (ours)
        (void)unlink(path);
}

/* ---- Service manager --------------------------------------------------------------------------
 */

void process_notify(const char *state)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    size_t len = path ? strlen(path) : 0;
    if (len < 2 || len >= sizeof to.sun_path || (path[0] != '/' && path[0] != '@'))
        return;
    memcpy(to.sun_path, path, len);
    if (path[0] == '@')
        to.sun_path[0] = 0; /* the abstract namespace */
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    (void)sendto(fd, state, strlen(state), MSG_NOSIGNAL | MSG_DONTWAIT, (struct sockaddr *)&to,
                 (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len));
    close(fd);
}

void process_notify_reloading(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    char state[80];
    snprintf(state, sizeof state, "RELOADING=1\nMONOTONIC_USEC=%" PRId64,
             (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000);
    process_notify(state);
}
