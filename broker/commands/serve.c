/* broker/commands/serve.c: runs a node until a signal ends it.
 *
 * SIGTERM and SIGINT stop it in order, SIGUSR1 makes a checkpoint now, SIGHUP reads the
 * settings again (settings_reload.h). All are blocked before the first thread starts and taken by
 * sigwait, so no handler runs anywhere.
 *
 * A single node in the foreground of a terminal: the main thread is an SQL prompt over the node's
 * own port: a thread of its own waits for signals then, SIGINT belongs to the prompt (it cancels a
 * query), and log lines below warning go to chronos.log in the data directory. */
#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <pthread.h>
#include <signal.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "broker/auth/auth.h"
#include "broker/checkpointer.h"
#include "broker/commands/commands.h"
#include "broker/commands/force.h"
#include "broker/commands/log_output.h"
#include "broker/commands/process.h"
#include "broker/commands/serve.h"
#include "broker/commands/settings.h"
#include "broker/commands/settings_reload.h"
#include "broker/net/acceptor.h"
#include "broker/net/listener.h"
#include "broker/node.h"
#include "sqlfront/cli/cli.h"

/* chronos.log is put aside at a start when it has grown beyond this. */
#define LOG_FILE_BYTES (16 << 20)

/* Each connection is a descriptor; the soft limit is for programs that use select(). */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static void block_signals(sigset_t *set, bool prompt)
{
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigaction(SIGPIPE, &ignore, NULL);
    sigemptyset(set);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGHUP);
    sigaddset(set, SIGUSR1);
    sigaddset(set, SIGUSR2); /* the node asks to be started again */
    sigaddset(set, SIGINT);
    pthread_sigmask(SIG_BLOCK, set, NULL);
    if (prompt)
        sigdelset(set, SIGINT); /* the prompt unblocks it in its own thread */
}

/* ---- Signals ----------------------------------------------------------------------------------
 */

static void checkpoint_now(struct broker_node *node)
{
    struct checkpointer *cp = atomic_load(&node->checkpointer);
    int64_t began_us = chr_clock_mono_us(node->clock);
    chr_err err = cp ? checkpointer_request(cp) : CHR_ECLOSED;
    if (err)
        chr_log_error("node", "checkpoint on request failed", CHR_KV_C("error", chr_strerror(err)));
    else
        chr_log_notice("node", "checkpoint on request",
                       CHR_KV_U("index", db_durable_index(node->db)),
                       CHR_KV_I("us", chr_clock_mono_us(node->clock) - began_us));
}

/* Returns when the node is to stop; true: and to start again. reload: NULL under a prompt, where
 * SIGHUP is the terminal's end. */
static bool wait_for_stop(const sigset_t *set, struct broker_node *node,
                          struct settings_reload *reload)
{
    for (;;) {
        int number = 0;
        if (sigwait(set, &number))
            continue;
        if (number == SIGUSR1)
            checkpoint_now(node);
        else if (number == SIGHUP && reload) {
            process_notify_reloading();
            settings_reload_run(reload, node);
            process_notify("READY=1");
        } else if (number != SIGUSR2) {
            chr_log_notice("node", "stopping", CHR_KV_C("signal", strsignal(number)));
            return false;
        } else if (atomic_load(&node->restart_wanted)) {
            return true;
        }
    }
}

/* ---- The prompt -------------------------------------------------------------------------------
 */

/* In the foreground of a terminal; a job in the background must not touch it. */
static bool has_terminal(void)
{
    return isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) && tcgetpgrp(STDIN_FILENO) == getpgrp();
}

/* Where log lines below warning go while the data directory is not known to be ours. */
static int hold_log_lines(void)
{
    int fd = memfd_create("chronos.log", MFD_CLOEXEC);
    if (fd >= 0)
        chr_log_set_output(STDERR_FILENO, CHR_LOG_WARNING, fd);
    return fd;
}

static void release_log_lines(int held_fd, const char *data_dir)
{
    char path[4096], aside[4200];
    int n = snprintf(path, sizeof path, "%s/chronos.log", data_dir);
    if (n < 0 || (size_t)n >= sizeof path)
        return;
    struct stat st;
    if (stat(path, &st) == 0 && st.st_size > LOG_FILE_BYTES) {
        snprintf(aside, sizeof aside, "%s.1", path);
        (void)rename(path, aside);
    }
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0) {
        chr_log_warning("node", "can't write a log file", CHR_KV_C("path", path),
                        CHR_KV_C("error", strerror(errno)));
        return;
    }
    /* The held descriptor stays open: a thread may be about to write to it. */
    chr_log_set_output(STDERR_FILENO, CHR_LOG_WARNING, fd);
    char bytes[8192];
    off_t offset = 0;
    for (ssize_t got; held_fd >= 0 && (got = pread(held_fd, bytes, sizeof bytes, offset)) > 0;
         offset += got)
        if (write(fd, bytes, (size_t)got) != got)
            break;
}

struct signal_thread {
    pthread_t thread;
    sigset_t set;
    struct broker_node *node;
    int stop_fd; /* eventfd: the prompt is to end */
};

static void *signal_main(void *arg)
{
    struct signal_thread *signals = arg;
    (void)wait_for_stop(&signals->set, signals->node, NULL);
    uint64_t one = 1;
    ssize_t n = write(signals->stop_fd, &one, sizeof one);
    (void)n;
    return NULL;
}

static void prompt(const struct settings *settings, struct broker_node *node, const sigset_t *set)
{
    if (!strcmp(node->mqtt_address, "none")) {
        chr_log_warning("node", "no prompt: no listener speaks plain MQTT over TCP");
        sigset_t all = *set;
        sigaddset(&all, SIGINT);
        (void)wait_for_stop(&all, node, false);
        return;
    }
    struct signal_thread signals = {.node = node, .set = *set};
    signals.stop_fd = eventfd(0, EFD_CLOEXEC);
    if (signals.stop_fd < 0 || pthread_create(&signals.thread, NULL, signal_main, &signals)) {
        chr_log_warning("node", "no prompt: can't start a thread");
        (void)wait_for_stop(set, node, NULL);
        return;
    }
    struct cli_options options;
    char host[256];
    cli_options_default(&options);
    if (net_parse_address(node->mqtt_address, host, sizeof host, &options.port, NULL) == CHR_OK) {
        /* A node on all addresses is reached at its own. */
        bool any = !strcmp(host, "0.0.0.0") || !strcmp(host, "::");
        options.host = any ? (host[0] == '0' ? "127.0.0.1" : "::1") : host;
    }
    char token[AUTH_OWN_TOKEN_BYTES];
    authority_own_token(node->authority, token);
    options.user = "token";
    options.password = token;
    options.stop_fd = signals.stop_fd;
    options.own_node = true;
    printf("Chronos %s, data in %s. Type SQL, \\? for help, \\q to stop the node.\n",
           CHRONOS_VERSION, settings->config.data_dir);
    fflush(stdout);
    (void)cli_run(&options);
    /* The thread may wait for a signal still: this is one. */
    pthread_kill(signals.thread, SIGTERM);
    pthread_join(signals.thread, NULL);
    close(signals.stop_fd);
    /* A terminal that went away is no failure of the node. */
    if (fflush(stdout))
        __fpurge(stdout);
    clearerr(stdout);
}

/* ---- The command ------------------------------------------------------------------------------
 */

/* One line, which scripts wait for: the first plain listener, the admin port, all other
 * listeners. One write, or lines of the log could get
 * in between. */
static void say_ready(const struct broker_node *node)
{
    char line[256 + LISTENERS_MAX * 160];
    int len = snprintf(line, sizeof line, "ready mqtt=%s admin=%s", node->mqtt_address,
                       node->admin_address);
    bool first = true;
    for (uint32_t i = 0; i < node->listeners_count && len > 0; i++) {
        const struct listener *l = &node->listeners[i];
        if (first && !strcmp(listener_kind(l), "mqtt"))
            first = false;
        else
            len += snprintf(line + len, sizeof line - (size_t)len, " %s=%s", listener_kind(l),
                            l->bound);
    }
    fprintf(stderr, "%s\n", line);
}

/* Who wonders why a client on another machine gets no answer finds this line. */
static void say_loopback_only(const struct broker_config *config)
{
    uint32_t tcp = 0;
    for (uint32_t i = 0; i < config->listeners_count; i++) {
        const char *address = config->listeners[i].address;
        tcp += address != NULL;
        if (address && !settings_is_loopback(address))
            return;
    }
    if (tcp)
        chr_log_notice(
            "net",
            "listening on loopback only: clients on other machines can't connect; to let "
            "them in, set `listener 1883` (all addresses) or `--address HOST:PORT`, and "
            "say who may come in (`password_file`, or `allow_anonymous true` for everybody)");
}

/* A snapshot waits to be put in place (broker/snapshots.h): the node stops and starts within the
 * process, at the ports it had and with the settings it ran with. NULL: it can't; said already. */
static struct broker_node *start_again(struct broker_node *node, struct settings_reload *reload)
{
    /* As long as the node that uses it: this one or the next. */
    static struct {
        struct broker_config config;
        char admin[80];
    } uses[2];
    static unsigned turn;
    turn ^= 1;
    struct broker_config *config = &uses[turn].config;
    char *admin = uses[turn].admin;
    struct chr_errmsg msg = {{0}};
    *config = reload->now->config;
    for (uint32_t i = 0; i < node->listeners_count; i++)
        config->listeners[i].port_before = listener_port(&node->listeners[i]);
    snprintf(admin, sizeof uses[0].admin, "%s", node->admin_address);
    config->admin_address = admin;
    node->failed = true; /* what it holds is about to be replaced: no last checkpoint */
    node_stop(node);
    node_free(node);
    if (node_start(config, chr_clock_system(), &node, &msg)) {
        complain(NULL, "%s", msg.text);
        return NULL;
    }
    node_reload_register(node, &log_output_reload);
    return node;
}

int serve(const struct settings *settings, bool cluster, int argc, char **argv)
{
    const struct broker_config *config = &settings->config;
    bool with_prompt = !cluster && has_terminal();
    struct chr_errmsg msg = {{0}};
    raise_descriptor_limit();
    chr_err err = process_become(config->user, &msg);
    if (!err)
        err = log_output_start(config, with_prompt, &msg);
    if (!err && config->pid_file)
        err = process_write_pid(config->pid_file, &msg);
    if (err) {
        complain(NULL, "%s", msg.text);
        log_output_stop();
        return EXIT_FAILED;
    }
    settings_note(settings);
    sigset_t set;
    block_signals(&set, with_prompt);
    if (with_prompt)
        (void)setlocale(LC_CTYPE, ""); /* the line editor's characters; before any thread */
    int held_fd = with_prompt ? hold_log_lines() : -1;

    struct broker_node *node = NULL;
    if ((config->cluster.force_new && force_new_cluster(config, &msg)) ||
        node_start(config, chr_clock_system(), &node, &msg)) {
        complain(NULL, "%s", msg.text);
        process_remove_pid(config->pid_file);
        log_output_stop();
        return EXIT_FAILED;
    }
    static struct settings_reload reload; /* large, and there is one node in a process */
    settings_reload_init(&reload, settings, cluster, argc, argv);
    node_reload_register(node, &log_output_reload);
    if (with_prompt)
        release_log_lines(held_fd, config->data_dir);
    say_loopback_only(config);
    say_ready(node);
    process_notify("READY=1");
    if (with_prompt) {
        prompt(settings, node, &set);
    } else {
        while (wait_for_stop(&set, node, &reload)) {
            node = start_again(node, &reload);
            if (!node) {
                process_remove_pid(config->pid_file);
                log_output_stop();
                return EXIT_FAILED;
            }
        }
    }
    process_notify("STOPPING=1");

    /* Stopping waits for what was accepted; whoever is in a hurry may interrupt once more: what was
     * acknowledged is in the log. */
    sigset_t interrupt;
    sigemptyset(&interrupt);
    sigaddset(&interrupt, SIGINT);
    pthread_sigmask(SIG_UNBLOCK, &interrupt, NULL);
    node_stop(node);
    node_free(node);
    chr_log_notice("node", "stopped");
    process_remove_pid(config->pid_file);
    log_output_stop();
    settings_reload_free(&reload);
    return EXIT_DONE;
}
