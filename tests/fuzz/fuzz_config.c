/* tests/fuzz/fuzz_config.c: settings as files, flags and environment say them.
 *
 * Input: a line that says which (`file`, `flags`, `env`; anything else is a file as a whole), then
 * the text; flags and variables are one a line. Properties: it is taken, or refused with a sentence
 * that says where; the same again gives the same; a reload with the same settings changes nothing;
 * each value that a file set reads back from how it is written. A file may be two, apart by a line
 * `====`: the second is what a reload finds, and a second reload with it takes nothing more.
 *
 * Names are resolved here: no input may ask a name server. What would open other files is left out.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/assert.h"
#include "broker/commands/settings.h"

#define LINES_MAX 64
#define INPUT_MAX 65536

/* ---- Names ------------------------------------------------------------------------------------
 */

int getaddrinfo(const char *host, const char *service, const struct addrinfo *hints,
                struct addrinfo **list)
{
    struct {
        struct addrinfo info;
        struct sockaddr_storage address;
    } *found = calloc(1, sizeof *found);
    struct sockaddr_in *in = (struct sockaddr_in *)&found->address;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&found->address;
    (void)service, (void)hints;
    CHR_ASSERT(found);
    found->info.ai_addr = (struct sockaddr *)&found->address;
    if (!strcmp(host, "localhost"))
        host = "127.0.0.1";
    if (inet_pton(AF_INET, host, &in->sin_addr) == 1) {
        in->sin_family = AF_INET;
        found->info.ai_addrlen = sizeof *in;
    } else if (inet_pton(AF_INET6, host, &in6->sin6_addr) == 1) {
        in6->sin6_family = AF_INET6;
        found->info.ai_addrlen = sizeof *in6;
    } else {
        free(found);
        return EAI_NONAME;
    }
    found->info.ai_family = found->address.ss_family;
    *list = &found->info;
    return 0;
}

void freeaddrinfo(struct addrinfo *list)
{
    free(list);
}

/* ---- One reading ------------------------------------------------------------------------------
 */

struct input {
    char *argv[LINES_MAX + 2];
    int argc;
    char *environment[LINES_MAX + 1];
    int fd; /* of the file; -1: none */
    char path[64];
};

static bool has(const char *text, size_t len, const char *word)
{
    return len && memmem(text, len, word, strlen(word)) != NULL;
}

static int split_lines(char *text, char **lines)
{
    int count = 0;
    for (char *save = NULL, *line = strtok_r(text, "\n", &save); line && count < LINES_MAX;
         line = strtok_r(NULL, "\n", &save))
        lines[count++] = line;
    lines[count] = NULL;
    return count;
}

static void note_change(void *ctx, const struct option *option, bool taken)
{
    (void)option, (void)taken;
    ++*(unsigned *)ctx;
}

static void note_taken(void *ctx, const struct option *option, bool taken)
{
    (void)option;
    *(unsigned *)ctx += taken;
}

static chr_err load(struct settings *settings, struct input *in, struct chr_errmsg *msg)
{
    if (in->fd >= 0)
        CHR_ASSERT(lseek(in->fd, 0, SEEK_SET) == 0);
    char **own = environ;
    environ = in->environment;
    chr_err err = settings_load(settings, true, in->argc, in->argv, msg);
    environ = own;
    return err;
}

static bool reads_back(enum option_kind kind)
{
    return kind == OPTION_TEXT || kind == OPTION_BOOL || kind == OPTION_U16 || kind == OPTION_U32 ||
           kind == OPTION_BYTES32 || kind == OPTION_BYTES64 || kind == OPTION_SECONDS16 ||
           kind == OPTION_SECONDS32 || kind == OPTION_MS32 || kind == OPTION_CHOICE;
}

static void check_values(const struct settings *settings)
{
    size_t count;
    const struct option *table = settings_table(&count);
    static struct settings again;
    for (size_t i = 0; i < count; i++) {
        char value[512], text[700], back[512];
        if (settings->options.source[i] != OPTION_FROM_FILE || !reads_back(table[i].kind))
            continue;
        options_value(&table[i], settings, value, sizeof value);
        /* What doesn't fit, or is the word for "no bound", which has no number. */
        if (strlen(value) == sizeof value - 1 || !value[0])
            continue;
        struct chr_errmsg msg = {{0}};
        memset(&again.config, 0, sizeof again.config);
        options_init(&again.options, table, count, &again);
        int len = snprintf(text, sizeof text, "%s = %s\n", table[i].name, value);
        chr_err err = options_text(&again.options, "again", chr_slice_of(text, (size_t)len), &msg);
        CHR_ASSERT(err == CHR_OK);
        options_value(&table[i], &again, back, sizeof back);
        CHR_ASSERT(!strcmp(value, back));
        options_free(&again.options);
    }
}

static void check(struct input *in)
{
    static struct settings first, second;
    struct chr_errmsg msg = {{0}}, msg_again = {{0}};
    chr_err err = load(&first, in, &msg);
    chr_err again = load(&second, in, &msg_again);
    CHR_ASSERT(err == again);
    CHR_ASSERT(!strcmp(msg.text, msg_again.text));
    if (err) {
        CHR_ASSERT(err == CHR_EINVAL || err == CHR_ENOMEM);
        CHR_ASSERT(msg.text[0]);
    } else if (!first.help) {
        unsigned changes = 0;
        CHR_ASSERT(first.config.listeners_count > 0);
        CHR_ASSERT(first.config.listeners_count <= LISTENERS_MAX);
        CHR_ASSERT(first.config.address);
        check_values(&first);
        settings_take(&first, &second, note_change, &changes);
        CHR_ASSERT(changes == 0);
    }
    settings_free(&first);
    settings_free(&second);
}

static void check_reload(struct input *before, struct input *after)
{
    static struct settings now, fresh, again;
    struct chr_errmsg msg = {{0}};
    unsigned changes = 0;
    chr_err err = load(&now, before, &msg);
    if (!err)
        err = load(&fresh, after, &msg);
    else
        memset(&fresh, 0, sizeof fresh);
    if (!err) {
        uint32_t listeners = now.config.listeners_count;
        settings_take(&now, &fresh, note_change, &changes);
        CHR_ASSERT(fresh.config.listeners_count == listeners);
        CHR_ASSERT(load(&again, after, &msg) == CHR_OK);
        changes = 0;
        settings_take(&fresh, &again, note_taken, &changes);
        CHR_ASSERT(changes == 0);
        settings_free(&again);
    }
    settings_free(&now);
    if (fresh.options.table)
        settings_free(&fresh);
}

static void open_file(struct input *in, const char *text, size_t len)
{
    in->fd = memfd_create("settings", MFD_CLOEXEC);
    CHR_ASSERT(in->fd >= 0);
    CHR_ASSERT(write(in->fd, text, len) == (ssize_t)len);
    snprintf(in->path, sizeof in->path, "/proc/self/fd/%d", in->fd);
    in->argv[0] = "--config";
    in->argv[1] = in->path;
    in->argc = 2;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const opens_files[] = {"include", "config", "INCLUDE", "CONFIG"};
    const uint8_t *end = size ? memchr(data, '\n', size) : NULL;
    size_t word = end ? (size_t)(end - data) : 0;
    bool flags = word == 5 && !memcmp(data, "flags", 5);
    bool env = word == 3 && !memcmp(data, "env", 3);
    struct input in = {.fd = -1};
    if (size > INPUT_MAX)
        return 0;
    for (size_t i = 0; i < CHR_COUNT_OF(opens_files); i++)
        if (has((const char *)data, size, opens_files[i]))
            return 0;
    char *text = malloc(size + 1);
    CHR_ASSERT(text);
    if (size)
        memcpy(text, data, size);
    text[size] = 0;
    if (flags) {
        in.argc = split_lines(text + word, in.argv);
        /* -c FILE */
        for (int i = 0; i < in.argc; i++)
            if (in.argv[i][0] == '-' && in.argv[i][1] == 'c')
                in.argc = i;
    } else if (env) {
        split_lines(text + word, in.environment);
    } else {
        size_t skip = word == 4 && !memcmp(data, "file", 4) ? 5 : 0;
        const char *end_of_first = strstr(text + skip, "\n====\n");
        size_t first = end_of_first ? (size_t)(end_of_first + 1 - text) : size;
        open_file(&in, text + skip, first - skip);
        if (end_of_first) {
            struct input reloaded = {.fd = -1};
            open_file(&reloaded, text + first + 5, size - first - 5);
            check_reload(&in, &reloaded);
            close(reloaded.fd);
        }
    }
    check(&in);
    if (in.fd >= 0)
        close(in.fd);
    free(text);
    return 0;
}
