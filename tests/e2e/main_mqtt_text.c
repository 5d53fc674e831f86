/* tests/e2e/main_mqtt_text.c: what a client sends and what must come back, as text, against the
 * real binary.
 *
 *     chr_test_mqtt_text CHRONOS [--flags FLAGS] FILE...
 *                                               prints `ok NAME` or `not ok NAME` per test
 *
 * A file has one node, started when its first test begins. Lines:
 *
 *     test NAME                begins a test; the connections of the one before are closed
 *     node FLAGS...            (before the first test) more flags for the node; $TEXTS is the
 *                              directory of the file
 *     A> 10 <s'MQTT' …>        connection A sends bytes (tests/proto/mqtt_text.h); it connects when
 *                              first used, and speaks the version of its CONNECT
 *     A 3.1.1                  …when that comes in pieces
 *     A< CONNACK …             the next packet that A receives, as mqtt_text.h prints it; lines
 * that Session Expiry 5       follow it, indented, are properties that it must have; `*` and `?`
 *                              match anything, `'` in them stands for `"`. A line `  none` says
 * that it has no properties, one `  no PATTERN` that it has none like that. A< nothing nothing
 * came: a PINGREQ is answered before anything else A< close                 the server closes A
 * close                  we close, without DISCONNECT sql TEXT                 a statement over
 * another connection… rows [[1]] …and the rows of its answer; `eventually [[1]]` asks until they
 * are restart kill | term      the node dies and starts again on its data # … a comment: the rule
 * by its number
 *
 * Nothing waits for a fixed time: an expected packet has TIMEOUT_MS to come. */
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/compiler.h"
/* Written for the unit tests, which are compiled with fewer warnings than programs. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#include "tests/proto/mqtt_text.h"
#pragma GCC diagnostic pop

#define TIMEOUT_MS   15000
#define LINES_MAX    4096
#define CLIENTS_MAX  26
#define RECEIVED_MAX (16u << 20)

struct client {
    int fd; /* -1: not connected */
    enum mqtt_version version;
    struct chr_buf in;
};

static const char *binary;
static const char *all_flags = "";
static char flags[1024];
static char data_dir[64];
static pid_t node_pid;
static int node_port;
static struct client clients[CLIENTS_MAX + 1]; /* the last one asks SQL */
static char problem[4096];

static bool fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
static bool fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(problem, sizeof problem, format, args);
    va_end(args);
    return false;
}

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* ---- The node ---------------------------------------------------------------------------------
 */

static bool node_start(void)
{
    int pipes[2];
    if (pipe(pipes))
        return fail("pipe");
    node_pid = fork();
    if (node_pid == 0) {
        dup2(pipes[1], 2);
        close(pipes[0]);
        close(pipes[1]);
        int null = open("/dev/null", O_RDWR);
        dup2(null, 0);
        dup2(null, 1);
        char command[2048];
        snprintf(
            command, sizeof command,
            "exec '%s' single-node --data-dir '%s' --address 127.0.0.1:0 --log-level warning %s %s",
            binary, data_dir, all_flags, flags);
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
    close(pipes[1]);
    /* Until it is ready; after that somebody must read what it logs, or it would block. */
    FILE *log = fdopen(pipes[0], "r");
    char line[1024], last[1024] = "";
    node_port = 0;
    while (!node_port && fgets(line, sizeof line, log)) {
        if (sscanf(line, "ready mqtt=127.0.0.1:%d", &node_port) != 1)
            snprintf(last, sizeof last, "%s", line);
    }
    if (!node_port) {
        fclose(log);
        return fail("the node did not start: %s", last);
    }
    if (fork() == 0) {
        while (fgets(line, sizeof line, log))
            if (getenv("MQTT_TEXT_LOG"))
                fputs(line, stderr);
        _exit(0);
    }
    fclose(log);
    return true;
}

static bool node_stop(int signal_number)
{
    if (!node_pid)
        return true;
    kill(node_pid, signal_number);
    int status = 0;
    waitpid(node_pid, &status, 0);
    node_pid = 0;
    while (waitpid(-1, NULL, WNOHANG) > 0) {
    }
    if (signal_number == SIGTERM && !(WIFEXITED(status) && WEXITSTATUS(status) == 0))
        return fail("the node ended with status %#x", (unsigned)status);
    return true;
}

/* ---- Connections ------------------------------------------------------------------------------
 */

static void client_close(struct client *c)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
    chr_buf_free(&c->in);
    chr_buf_init(&c->in, RECEIVED_MAX);
}

static bool client_open(struct client *c)
{
    if (c->fd >= 0)
        return true;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)node_port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (connect(c->fd, (struct sockaddr *)&to, sizeof to))
        return fail("can't connect: %s", strerror(errno));
    int one = 1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    c->version = MQTT_V5;
    return true;
}

static bool client_send(struct client *c, chr_slice bytes)
{
    if (!client_open(c))
        return false;
    /* CONNECT: 10, length, 00 04 'MQTT', level */
    if (bytes.len > 9 && bytes.ptr[0] == 0x10) {
        const uint8_t *at = memmem(bytes.ptr, bytes.len, "MQTT", 4);
        if (at)
            c->version = at[4] == 4 ? MQTT_V311 : MQTT_V5;
    }
    while (bytes.len) {
        ssize_t n = send(c->fd, bytes.ptr, bytes.len, MSG_NOSIGNAL);
        if (n <= 0)
            return errno == EPIPE || errno == ECONNRESET ? true : fail("send: %s", strerror(errno));
        bytes.ptr += n;
        bytes.len -= (size_t)n;
    }
    return true;
}

enum got { GOT_PACKET, GOT_CLOSE, GOT_NOTHING };

/* The next whole packet stands at the start of in, frame is filled. */
static enum got client_receive(struct client *c, struct mqtt_frame *frame, int timeout_ms)
{
    int64_t until = now_ms() + timeout_ms;
    for (;;) {
        int n = c->in.len ? mqtt_frame_from_server(chr_buf_slice(&c->in), 0, frame) : 0;
        if (n > 0)
            return GOT_PACKET;
        if (n < 0 || c->fd < 0)
            return GOT_CLOSE;
        struct pollfd p = {.fd = c->fd, .events = POLLIN};
        int64_t left = until - now_ms();
        if (poll(&p, 1, left > 0 ? (int)left : 0) == 0)
            return GOT_NOTHING;
        uint8_t bytes[65536];
        ssize_t got = recv(c->fd, bytes, sizeof bytes, 0);
        if (got <= 0)
            return GOT_CLOSE;
        chr_buf_add(&c->in, bytes, (size_t)got);
    }
}

static char *packet_text(struct client *c, const struct mqtt_frame *frame)
{
    struct any_packet any = {0};
    struct mqtt_fault fault = {0};
    struct chr_buf out;
    chr_buf_init(&out, RECEIVED_MAX);
    if (any_decode(frame, c->version, &any, &fault))
        dump_fault(&out, &fault);
    else
        dump_packet(&out, &any);
    chr_buf_add_u8(&out, 0);
    char *text = strdup((const char *)out.ptr);
    chr_buf_free(&out);
    /* JSON is easier to write and to read with single quotes. */
    for (char *quote; (quote = strstr(text, "\\x22"));) {
        *quote = '\'';
        memmove(quote + 1, quote + 4, strlen(quote + 4) + 1);
    }
    chr_buf_consume(&c->in, frame->packet_bytes);
    return text;
}

/* ---- Expectations -----------------------------------------------------------------------------
 */

static bool matches(const char *pattern, const char *text)
{
    /* `[` is a character of payloads, not of patterns. */
    char escaped[8192];
    size_t at = 0;
    for (const char *p = pattern; *p && at + 2 < sizeof escaped; p++) {
        if (*p == '[' || *p == '\\')
            escaped[at++] = '\\';
        escaped[at++] = *p;
    }
    escaped[at] = 0;
    return fnmatch(escaped, text, 0) == 0;
}

static bool expect_packet(struct client *c, char **expected, int count)
{
    struct mqtt_frame frame;
    switch (client_receive(c, &frame, TIMEOUT_MS)) {
    case GOT_CLOSE:
        return fail("closed instead of %s", expected[0]);
    case GOT_NOTHING:
        return fail("nothing came instead of %s", expected[0]);
    case GOT_PACKET:
        break;
    }
    char *text = packet_text(c, &frame), *lines[256];
    char *whole = strdup(text);
    int lines_count = 0;
    for (char *save = NULL, *l = strtok_r(text, "\n", &save); l && lines_count < 256;
         l = strtok_r(NULL, "\n", &save))
        lines[lines_count++] = l;
    bool ok = lines_count > 0 && matches(expected[0], lines[0]);
    int from = 1;
    for (int i = 1; ok && i < count; i++) {
        const char *want = expected[i] + strspn(expected[i], " ");
        if (strcmp(want, "none") == 0) {
            ok = lines_count == 1;
            continue;
        }
        if (strncmp(want, "no ", 3) == 0) {
            for (int k = 1; ok && k < lines_count; k++)
                ok = !matches(want + 3, lines[k] + strspn(lines[k], " "));
            continue;
        }
        bool found = false; /* in this order, others may stand between */
        for (; from < lines_count && !found; from++)
            found = matches(want, lines[from] + strspn(lines[from], " "));
        ok = found;
    }
    if (!ok)
        fail("expected %s%s%s\n     came %s", expected[0], count > 1 ? " +" : "",
             count > 1 ? expected[1] : "", whole);
    free(text);
    free(whole);
    return ok;
}

static bool expect_nothing(struct client *c)
{
    static const uint8_t ping[] = {0xc0, 0};
    if (!client_send(c, chr_slice_of(ping, sizeof ping)))
        return false;
    char *pong[] = {"PINGRESP"};
    return expect_packet(c, pong, 1);
}

static bool expect_close(struct client *c)
{
    struct mqtt_frame frame;
    switch (client_receive(c, &frame, TIMEOUT_MS)) {
    case GOT_CLOSE:
        client_close(c);
        return true;
    case GOT_NOTHING:
        return fail("the connection was not closed");
    case GOT_PACKET:
        break;
    }
    char *text = packet_text(c, &frame);
    fail("not closed, but came %s", text);
    free(text);
    return false;
}

/* ---- SQL --------------------------------------------------------------------------------------
 */

static bool sql(const char *statement, char **answer)
{
    struct client *c = &clients[CLIENTS_MAX];
    static const uint8_t connect[] = {0x10, 13, 0, 4, 'M', 'Q', 'T', 'T', 5, 2, 0, 0, 0, 0, 0};
    static const char topic[] = "$chronos/sql", response[] = "$chronos/result/text-test";
    struct chr_buf out;
    struct mqtt_frame frame;
    chr_buf_init(&out, 1 << 20);
    if (c->fd < 0) {
        chr_buf_add(&out, connect, sizeof connect);
        uint8_t subscribe[128];
        struct mqtt_subscribe packet = {.packet_id = 1};
        struct mqtt_subscription filter = {.filter = chr_slice_cstr(response), .qos = 1};
        size_t n = mqtt_encode_subscribe(subscribe, sizeof subscribe, MQTT_V5, &packet, &filter, 1);
        chr_buf_add(&out, subscribe, n);
    }
    uint8_t block[128];
    struct mqtt_property_writer w = mqtt_property_writer(block, sizeof block);
    mqtt_put_bytes(&w, MQTT_PROPERTY_RESPONSE_TOPIC, chr_slice_cstr(response));
    struct mqtt_publish publish = {.topic = chr_slice_cstr(topic),
                                   .payload = chr_slice_cstr(statement),
                                   .properties.raw = mqtt_property_block(&w)};
    size_t size = mqtt_encode_publish_size(MQTT_V5, &publish);
    chr_err err = chr_buf_reserve(&out, size);
    out.len += err ? 0 : mqtt_encode_publish(out.ptr + out.len, size, MQTT_V5, &publish);
    bool ok = client_send(c, chr_buf_slice(&out));
    chr_buf_free(&out);
    *answer = NULL;
    while (ok && !*answer) {
        if (client_receive(c, &frame, TIMEOUT_MS) != GOT_PACKET)
            return fail("no answer to SQL");
        struct mqtt_publish got;
        struct mqtt_fault fault;
        if (frame.type == MQTT_PUBLISH && !mqtt_decode_publish(&frame, MQTT_V5, &got, &fault))
            *answer = strndup((const char *)got.payload.ptr, got.payload.len);
        chr_buf_consume(&c->in, frame.packet_bytes);
    }
    return ok;
}

static bool rows(const char *statement, const char *expected, bool eventually)
{
    int64_t until = now_ms() + TIMEOUT_MS;
    for (;;) {
        char *answer;
        if (!sql(statement, &answer))
            return false;
        char *at = strstr(answer, "\"rows\":");
        char *end = strstr(answer, ",\"row_count\"");
        if (at && end)
            *end = 0;
        bool ok = at && matches(expected, at + 7);
        if (!ok && (!eventually || now_ms() > until))
            fail("expected rows %s\n     came %s", expected, at ? at + 7 : answer);
        free(answer);
        if (ok || !eventually || now_ms() > until)
            return ok;
    }
}

/* ---- A file -----------------------------------------------------------------------------------
 */

static char *trim(char *line)
{
    size_t len = strlen(line);
    while (len && strchr(" \t\r\n", line[len - 1]))
        line[--len] = 0;
    return line;
}

/* Runs the command of lines[*i], which may take lines after it. */
static bool run_line(char **lines, int count, int *i)
{
    static char statement[65536];
    char *line = lines[*i];
    if (strncmp(line, "sql ", 4) == 0) {
        snprintf(statement, sizeof statement, "%s", line + 4);
        /* Without `rows` behind it, it is a write that has to work. */
        if (*i + 1 < count && (strncmp(lines[*i + 1], "rows ", 5) == 0 ||
                               strncmp(lines[*i + 1], "eventually ", 11) == 0))
            return true;
        char *answer;
        if (!sql(statement, &answer))
            return false;
        bool ok = strstr(answer, "\"error\"") == NULL;
        if (!ok)
            fail("%s", answer);
        free(answer);
        return ok;
    }
    if (strncmp(line, "rows ", 5) == 0)
        return rows(statement, line + 5, false);
    if (strncmp(line, "eventually ", 11) == 0)
        return rows(statement, line + 11, true);
    if (strncmp(line, "restart ", 8) == 0) {
        for (int c = 0; c <= CLIENTS_MAX; c++)
            client_close(&clients[c]);
        return node_stop(strcmp(line + 8, "kill") == 0 ? SIGKILL : SIGTERM) && node_start();
    }
    if (line[0] < 'A' || line[0] > 'Z')
        return fail("what is this?");
    struct client *c = &clients[line[0] - 'A'];
    if (strcmp(line + 1, " close") == 0) {
        client_close(c);
        return true;
    }
    if (strcmp(line + 1, " 3.1.1") == 0) {
        c->version = MQTT_V311;
        return true;
    }
    char *rest = line + 2 + strspn(line + 2, " ");
    if (line[1] == '>') {
        struct chr_buf bytes;
        chr_buf_init(&bytes, 1 << 24);
        const char *end = text_to_bytes(rest, &bytes);
        bool ok = end && *end == 0 ? client_send(c, chr_buf_slice(&bytes)) : fail("bad bytes");
        chr_buf_free(&bytes);
        return ok;
    }
    if (line[1] != '<')
        return fail("what is this?");
    if (strcmp(rest, "nothing") == 0)
        return expect_nothing(c);
    if (strcmp(rest, "close") == 0)
        return expect_close(c);
    char *expected[64] = {rest};
    int expected_count = 1;
    while (*i + 1 < count && lines[*i + 1][0] == ' ' && expected_count < 64)
        expected[expected_count++] = lines[++*i];
    return expect_packet(c, expected, expected_count);
}

static int run_test(const char *file, const char *name, char **lines, const int *numbers, int count)
{
    bool ok = true;
    if (!node_pid)
        ok = node_start();
    int i = 0;
    for (; ok && i < count; i++)
        ok = run_line(lines, count, &i);
    for (int c = 0; c < CLIENTS_MAX; c++)
        client_close(&clients[c]);
    const char *base = strrchr(file, '/') ? strrchr(file, '/') + 1 : file;
    if (ok) {
        printf("ok mqtt/%s: %s\n", base, name);
        return 0;
    }
    int at = i > 0 ? i - 1 : 0;
    fprintf(stderr, "%s:%d: %s\n  %s\n", file, count ? numbers[at] : 0, problem,
            count ? lines[at] : "");
    printf("not ok mqtt/%s: %s\n", base, name);
    return 1;
}

static int run_file(const char *path)
{
    FILE *file = fopen(path, "r");
    if (!file) {
        fprintf(stderr, "can't read %s\n", path);
        return 1;
    }
    snprintf(data_dir, sizeof data_dir, "/tmp/chronos-mqtt-text-XXXXXX");
    if (!mkdtemp(data_dir)) {
        fclose(file);
        return 1;
    }
    flags[0] = 0;
    char directory[1024];
    snprintf(directory, sizeof directory, "%s", path);
    char *slash = strrchr(directory, '/');
    if (slash)
        *slash = 0;
    (void)setenv("TEXTS", slash ? directory : ".", 1);
    static char *lines[LINES_MAX];
    static int numbers[LINES_MAX];
    int count = 0, failed = 0, number = 0;
    char *name = NULL, *line = NULL;
    size_t capacity = 0;
    bool more = true;
    while (more) {
        more = getline(&line, &capacity, file) >= 0;
        number++;
        if (more) {
            trim(line);
            if (line[0] == '#' || line[0] == 0)
                continue;
            if (strncmp(line, "node ", 5) == 0) {
                snprintf(flags, sizeof flags, "%s", line + 5);
                continue;
            }
        }
        if (!more || strncmp(line, "test ", 5) == 0) {
            if (name)
                failed += run_test(path, name, lines, numbers, count);
            for (int i = 0; i < count; i++)
                free(lines[i]);
            count = 0;
            free(name);
            name = more ? strdup(line + 5) : NULL;
            continue;
        }
        if (count < LINES_MAX) {
            numbers[count] = number;
            lines[count++] = strdup(line);
        }
    }
    free(name);
    free(line);
    fclose(file);
    client_close(&clients[CLIENTS_MAX]);
    if (!node_stop(SIGTERM)) {
        fprintf(stderr, "%s: %s\n", path, problem);
        printf("not ok mqtt/%s: stops\n", path);
        failed++;
    }
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", data_dir);
    if (system(command))
        failed++;
    return failed;
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: %s CHRONOS FILE...\n", argv[0]);
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGPIPE, SIG_IGN);
    binary = argv[1];
    for (int c = 0; c <= CLIENTS_MAX; c++) {
        clients[c].fd = -1;
        chr_buf_init(&clients[c].in, RECEIVED_MAX);
    }
    int failed = 0, first = 2;
    if (argc > 4 && strcmp(argv[2], "--flags") == 0) {
        all_flags = argv[3];
        first = 4;
    }
    for (int i = first; i < argc; i++)
        failed += run_file(argv[i]);
    return failed ? 1 : 0;
}
