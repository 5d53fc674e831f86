#include "sqlfront/cli/interrupt.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

/* One prompt per process: a signal handler has no other place to look. */
static int read_fd = -1, write_fd = -1;
static struct sigaction before;
static sigset_t mask_before;

static void on_interrupt(int number)
{
    (void)number;
    int saved = errno;
    ssize_t n = write(write_fd, "", 1);
    (void)n; /* a full pipe says it already */
    errno = saved;
}

bool cli_interrupt_begin(void)
{
    int fds[2];
    if (pipe2(fds, O_CLOEXEC | O_NONBLOCK))
        return false;
    read_fd = fds[0];
    write_fd = fds[1];
    struct sigaction action = {.sa_handler = on_interrupt};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, &before);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    pthread_sigmask(SIG_UNBLOCK, &set, &mask_before);
    return true;
}

void cli_interrupt_end(void)
{
    if (read_fd < 0)
        return;
    pthread_sigmask(SIG_SETMASK, &mask_before, NULL);
    sigaction(SIGINT, &before, NULL);
    close(read_fd);
    close(write_fd);
    read_fd = write_fd = -1;
}

int cli_interrupt_fd(void)
{
    return read_fd;
}

bool cli_interrupt_taken(void)
{
    char bytes[64];
    bool taken = false;
    while (read_fd >= 0 && read(read_fd, bytes, sizeof bytes) > 0)
        taken = true;
    return taken;
}

bool cli_interrupt_sleep(int timeout_ms, int stop_fd)
{
    struct pollfd fds[2] = {{.fd = read_fd, .events = POLLIN}, {.fd = stop_fd, .events = POLLIN}};
    int n = poll(fds, 2, timeout_ms);
    bool taken = cli_interrupt_taken();
    return n != 0 || taken;
}
