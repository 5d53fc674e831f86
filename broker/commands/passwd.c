/* broker/commands/passwd.c: `chronos passwd`: users of a password file, as mosquitto_passwd has it.
 *
 * The new file is written beside the old one, made durable, and takes its place by rename: a node
 * that reads meanwhile sees one or the other. */
#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "broker/auth/password.h"
#include "broker/auth/password_file.h"
#include "broker/auth/saslprep.h"
#include "broker/commands/commands.h"

struct passwd {
    bool create, remove, batch;
    enum password_kind kind;
    const char *file, *user, *password;
};

void passwd_help(FILE *out)
{
    fputs("Usage: chronos passwd [-c] [-H HASH] FILE USER            asks for the password\n"
          "       chronos passwd [-c] [-H HASH] -b FILE USER PASSWORD\n"
          "       chronos passwd -D FILE USER                       removes the user\n\n"
          "Adds a user to a password file or changes its password. A running node reads the file\n"
          "again on SIGHUP.\n\n"
          "  -c         make a new file, or empty the one that is there\n"
          "  -D         remove the user\n"
          "  -b         the password is an argument (others on this machine may see it)\n"
          "  -H HASH    sha512-pbkdf2 (default), sha512, argon2id, or scram: for SCRAM-SHA-256\n"
          "  --scram    the same as -H scram\n",
          out);
}

static const char *set_hash(struct passwd *p, const char *name)
{
    static const struct {
        const char *name;
        enum password_kind kind;
    } kinds[] = {{"sha512-pbkdf2", PASSWORD_PBKDF2_SHA512},
                 {"sha512", PASSWORD_SHA512},
                 {"argon2id", PASSWORD_ARGON2ID},
                 {"scram", PASSWORD_SCRAM_SHA256}};
    for (size_t i = 0; name && i < CHR_COUNT_OF(kinds); i++)
        if (!strcmp(kinds[i].name, name)) {
            p->kind = kinds[i].kind;
            return NULL;
        }
    return "-H takes sha512-pbkdf2, sha512, argon2id or scram";
}

/* NULL: fine. */
static const char *read_arguments(struct passwd *p, int argc, char **argv)
{
    int i = 0;
    const char *fault = NULL;
    for (; i < argc && argv[i][0] == '-' && !fault; i++) {
        if (!strcmp(argv[i], "-c"))
            p->create = true;
        else if (!strcmp(argv[i], "-D"))
            p->remove = true;
        else if (!strcmp(argv[i], "-b"))
            p->batch = true;
        else if (!strcmp(argv[i], "--scram"))
            p->kind = PASSWORD_SCRAM_SHA256;
        else if (!strcmp(argv[i], "-H"))
            fault = set_hash(p, ++i < argc ? argv[i] : NULL);
        else
            return "unknown flag; it is -c, -D, -b, -H or --scram";
    }
    if (fault)
        return fault;
    if (p->create && p->remove)
        return "-c and -D together make no sense";
    if (argc - i != (p->batch && !p->remove ? 3 : 2))
        return "give FILE and USER, and with -b the PASSWORD";
    p->file = argv[i];
    p->user = argv[i + 1];
    p->password = p->batch && !p->remove ? argv[i + 2] : NULL;
    return password_name_fault(chr_slice_cstr(p->user));
}

/* A line of the terminal or of standard input, without its end. */
static bool ask(const char *prompt, char *out, size_t size)
{
    struct termios before, quiet;
    bool terminal = isatty(STDIN_FILENO) && tcgetattr(STDIN_FILENO, &before) == 0;
    if (terminal) {
        fputs(prompt, stderr);
        quiet = before;
        quiet.c_lflag &= ~(tcflag_t)ECHO;
        (void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &quiet);
    }
    bool got = fgets(out, (int)size, stdin) != NULL;
    if (terminal) {
        (void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &before);
        fputc('\n', stderr);
    }
    if (got)
        out[strcspn(out, "\r\n")] = 0;
    return got && out[0];
}

struct rewrite {
    const struct passwd *p;
    struct chr_buf *out;
    const char *hash; /* NULL: the user goes */
    bool found;
};

/* Other lines stay as they are, comments too. */
static void rewrite(struct rewrite *r, chr_slice text)
{
    size_t name = strlen(r->p->user);
    while (text.len) {
        const uint8_t *end = memchr(text.ptr, '\n', text.len);
        size_t len = end ? (size_t)(end - text.ptr) : text.len;
        bool ours = len > name && !memcmp(text.ptr, r->p->user, name) && text.ptr[name] == ':';
        if (ours && r->hash && !r->found)
            chr_buf_addf(r->out, "%s:%s\n", r->p->user, r->hash);
        else if (!ours) {
            chr_buf_add(r->out, text.ptr, len);
            chr_buf_add_u8(r->out, '\n');
        }
        r->found |= ours;
        len += end != NULL;
        text.ptr += len;
        text.len -= len;
    }
    if (!r->found && r->hash)
        chr_buf_addf(r->out, "%s:%s\n", r->p->user, r->hash);
}

static bool replace(const char *path, chr_slice bytes)
{
    char temporary[4096];
    struct stat st;
    mode_t mode = stat(path, &st) == 0 ? st.st_mode & 0777 : 0600;
    int n = snprintf(temporary, sizeof temporary, "%s.XXXXXX", path);
    int fd = n > 0 && (size_t)n < sizeof temporary ? mkostemp(temporary, O_CLOEXEC) : -1;
    if (fd < 0)
        return false;
    size_t done = 0;
    bool ok = fchmod(fd, mode) == 0;
    while (ok && done < bytes.len) {
        ssize_t wrote = write(fd, bytes.ptr + done, bytes.len - done);
        ok = wrote > 0 || (wrote < 0 && errno == EINTR);
        done += wrote > 0 ? (size_t)wrote : 0;
    }
    ok = ok && fsync(fd) == 0;
    ok = close(fd) == 0 && ok;
    ok = ok && rename(temporary, path) == 0;
    if (!ok) {
        int saved = errno;
        (void)unlink(temporary);
        errno = saved;
    }
    return ok;
}

static int change(const struct passwd *p, const char *hash)
{
    struct chr_errmsg msg = {{0}};
    struct chr_buf before = {0}, after;
    if (!p->create && auth_read_file(p->file, PASSWORD_FILE_BYTES_MAX, &before, &msg)) {
        complain(NULL, "%s%s", msg.text, p->remove ? "" : " (-c makes a new file)");
        return EXIT_FAILED;
    }
    chr_buf_init(&after, PASSWORD_FILE_BYTES_MAX);
    struct rewrite r = {.p = p, .out = &after, .hash = hash};
    rewrite(&r, chr_buf_slice(&before));
    int status = EXIT_FAILED;
    if (p->remove && !r.found)
        complain(NULL, "%s has no user %s", p->file, p->user);
    else if (after.failed)
        complain(NULL, "the file would become too large");
    else if (!replace(p->file, chr_buf_slice(&after)))
        complain(NULL, "can't write %s: %s", p->file, strerror(errno));
    else
        status = EXIT_DONE;
    chr_buf_free(&before);
    chr_buf_free(&after);
    return status;
}

int command_passwd(int argc, char **argv)
{
    struct passwd p = {.kind = PASSWORD_PBKDF2_SHA512};
    if (argc && !strcmp(argv[0], "--help")) {
        passwd_help(stdout);
        return EXIT_DONE;
    }
    const char *fault = read_arguments(&p, argc, argv);
    if (fault) {
        complain("passwd", "%s", fault);
        return EXIT_USAGE;
    }
    if (p.remove)
        return change(&p, NULL);
    char typed[1024], again[1024];
    if (!p.password) {
        bool ok = ask("Password: ", typed, sizeof typed) &&
                  (!isatty(STDIN_FILENO) ||
                   (ask("Again: ", again, sizeof again) && !strcmp(typed, again)));
        OPENSSL_cleanse(again, sizeof again);
        if (!ok) {
            complain(NULL, "no password, or not the same twice");
            return EXIT_FAILED;
        }
        p.password = typed;
    }
    struct chr_buf hash;
    chr_buf_init(&hash, PASSWORD_TEXT_MAX);
    fault = saslprep_fault(chr_slice_cstr(p.password));
    chr_err err = password_make(p.kind, chr_slice_cstr(p.password), 0, &hash);
    OPENSSL_cleanse(typed, sizeof typed);
    chr_buf_add_u8(&hash, 0);
    int status = EXIT_FAILED;
    if (err == CHR_EINVAL)
        complain(NULL, "not a password for SCRAM: %s", fault);
    else if (err || hash.failed)
        complain(NULL, "can't hash the password: out of memory");
    else
        status = change(&p, (const char *)hash.ptr);
    chr_buf_free(&hash);
    return status;
}
