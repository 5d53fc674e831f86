/* broker/commands/snapshot.c: `chronos snapshot create|restore`: a backup, and back.
 *
 * create: of a running node through its admin port, which it finds in the data directory
 * (broker/run_file.h); of a directory that nobody runs by itself. What is written is verified as it
 * goes by, and gets its name when it is whole.
 *
 * restore: everything in the file is verified before the directory is touched; then it is put
 * beside what is there, verified as `chronos check` does, and takes its place (broker/install.h).
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "broker/commands/commands.h"
#include "broker/commands/http_get.h"
#include "broker/commands/offline.h"
#include "broker/config.h"
#include "broker/files.h"
#include "broker/install.h"
#include "broker/options.h"
#include "broker/run_file.h"
#include "broker/snapshot_file.h"
#include "broker/snapshot_pin.h"

struct snapshot_options {
    const char *data_dir, *output, *input, *admin_address;
    uint64_t map_bytes;
    bool force, help;
};

static chr_err set_help(struct options *options, void *target, const char *value,
                        struct chr_errmsg *msg)
{
    (void)options, (void)value, (void)msg;
    ((struct snapshot_options *)target)->help = true;
    return CHR_OK;
}

static chr_err set_force(struct options *options, void *target, const char *value,
                         struct chr_errmsg *msg)
{
    (void)options, (void)value, (void)msg;
    ((struct snapshot_options *)target)->force = true;
    return CHR_OK;
}

#define DATA_DIR(text)                                                                             \
    {                                                                                              \
        .kind = OPTION_TEXT, .name = "data-dir",                                                   \
        .offset = offsetof(struct snapshot_options, data_dir), .value = "DIR", .help = (text)      \
    }
#define MAP_SIZE                                                                                   \
    {                                                                                              \
        .kind = OPTION_BYTES64, .name = "map-size",                                                \
        .offset = offsetof(struct snapshot_options, map_bytes), .min = 16u << 20,                  \
        .value = "BYTES", .help = "address space of the database file"                             \
    }
#define HELP                                                                                       \
    {                                                                                              \
        .kind = OPTION_CUSTOM_FLAG, .name = "help",                                                \
        .offset = offsetof(struct snapshot_options, help), .set = set_help, .help = "this text"    \
    }

static const struct option create_table[] = {
    DATA_DIR("data directory of the node, running or not"),
    {.kind = OPTION_TEXT,
     .name = "output",
     .letter = 'o',
     .offset = offsetof(struct snapshot_options, output),
     .value = "FILE",
     .help = "the backup; must not be there yet"},
    {.kind = OPTION_TEXT,
     .name = "admin-address",
     .offset = offsetof(struct snapshot_options, admin_address),
     .value = "HOST:PORT",
     .help = "admin port of the node, when its data directory is not at hand; the environment "
             "variable CHRONOS_AUTH_TOKEN_ADMIN says who asks"},
    MAP_SIZE,
    HELP,
};

static const struct option restore_table[] = {
    DATA_DIR("data directory to be filled; its node must not run"),
    {.kind = OPTION_TEXT,
     .name = "input",
     .letter = 'i',
     .offset = offsetof(struct snapshot_options, input),
     .value = "FILE",
     .help = "the backup"},
    {.kind = OPTION_CUSTOM_FLAG,
     .name = "force",
     .offset = offsetof(struct snapshot_options, force),
     .set = set_force,
     .help = "replace the state that the directory holds; it is lost"},
    MAP_SIZE,
    HELP,
};

static void set_defaults(struct snapshot_options *o)
{
    struct broker_config config;
    broker_config_default(&config);
    *o = (struct snapshot_options){.data_dir = config.data_dir, .map_bytes = config.map_bytes};
}

void snapshot_help(FILE *out)
{
    struct snapshot_options defaults;
    set_defaults(&defaults);
    fputs(
        "Usage: chronos snapshot create  [--data-dir DIR] --output FILE\n"
        "       chronos snapshot restore [--data-dir DIR] --input FILE [--force]\n\n"
        "A backup of everything a node has committed: tables, users' grants, sessions with their\n"
        "queues, retained messages. It is taken while the node runs and serves; of a node that\n"
        "does not run it can be taken, too. Settings, passwords and certificates are not in it.\n\n"
        "A restored directory is a new cluster of one, which can do what the old one could. All "
        "of\n"
        "the file is verified before the directory is touched.\n\n"
        "Exit status: 0 done, 1 it failed, 2 it was asked wrongly.\n\n"
        "chronos snapshot create\n",
        out);
    options_help(out, create_table, CHR_COUNT_OF(create_table), &defaults);
    fputs("\nchronos snapshot restore\n", out);
    options_help(out, restore_table, CHR_COUNT_OF(restore_table), &defaults);
}

/* -- Create -------------------------------------------------------------------------------------*/

static chr_err write_some(void *arg, chr_slice bytes, struct chr_errmsg *msg)
{
    return snapshot_writer_add(arg, bytes, msg);
}

/* Through the admin port. */
static chr_err create_from_node(const struct snapshot_options *o, struct snapshot_writer *writer,
                                struct chr_errmsg *msg)
{
    struct run_file run = {.admin = ""};
    const char *address = o->admin_address, *token = getenv("CHRONOS_AUTH_TOKEN_ADMIN");
    if (!address) {
        chr_err err = run_file_read(o->data_dir, &run, msg);
        if (err == CHR_ENOTFOUND)
            return chr_fail(msg, err,
                            "the node of %s does not say where its admin port is (it may be "
                            "starting or stopping); try again, or give --admin-address",
                            o->data_dir);
        if (err)
            return err;
        address = run.admin;
        token = run.token;
    }
    return http_get(address, "/snapshot", token, write_some, writer, msg);
}

static chr_err write_parts(db_snapshot *snapshot, struct snapshot_writer *writer,
                           struct chr_errmsg *msg)
{
    struct chr_buf part;
    chr_err err = CHR_OK;
    chr_buf_init(&part, DB_SNAPSHOT_PART_BYTES_MAX);
    for (uint64_t i = 0; i < db_snapshot_info(snapshot)->parts && !err; i++) {
        err = db_snapshot_part(snapshot, i, &part, msg);
        if (!err)
            err = snapshot_writer_add(writer, chr_buf_slice(&part), msg);
    }
    chr_buf_free(&part);
    return err;
}

/* Nobody runs it: CHR_ELOCKED when somebody does. */
static chr_err create_from_directory(const struct snapshot_options *o,
                                     struct snapshot_writer *writer, struct chr_errmsg *msg)
{
    struct offline offline;
    db_snapshot *snapshot = NULL;
    chr_err err = offline_open(&offline, o->data_dir, o->map_bytes, true, msg);
    if (!err)
        err = offline_checkpoint(&offline, msg);
    if (!err && offline.left_out)
        complain(NULL,
                 "note: %" PRIu64 " entries of the log are not in it: only the cluster knows "
                 "whether they are committed",
                 offline.left_out);
    if (!err) {
        const struct snapshot_pin_options options = {
            .db = offline.db, .log = offline.log, .dir = &offline.dir};
        err = snapshot_pin(&options, &snapshot, msg);
    }
    if (!err)
        err = write_parts(snapshot, writer, msg);
    db_snapshot_end(snapshot);
    offline_close(&offline);
    return err;
}

static int create(const struct snapshot_options *o)
{
    struct chr_errmsg msg = {{0}};
    struct snapshot_writer writer;
    if (!o->output) {
        complain("snapshot", "--output: where to?");
        return EXIT_USAGE;
    }
    chr_err err = snapshot_writer_open(&writer, o->output, &msg);
    if (!err)
        err = o->admin_address ? create_from_node(o, &writer, &msg)
                               : create_from_directory(o, &writer, &msg);
    if (err == CHR_ELOCKED && !o->admin_address) {
        msg.text[0] = 0;
        err = create_from_node(o, &writer, &msg);
    }
    if (!err)
        err = snapshot_writer_finish(&writer, &msg);
    if (!err) {
        const struct db_snapshot_info *info = db_snapshot_receiver_info(writer.receiver);
        printf("%s: state up to entry %" PRIu64 ", %" PRIu64 " bytes\n", o->output, info->index,
               writer.bytes);
    }
    snapshot_writer_close(&writer);
    if (!err)
        return EXIT_DONE;
    complain(NULL, "%s", msg.text[0] ? msg.text : chr_strerror(err));
    return EXIT_FAILED;
}

/* -- Restore ------------------------------------------------------------------------------------*/

static chr_err put_part(void *arg, chr_slice part, struct chr_errmsg *msg)
{
    return install_put(arg, part, msg);
}

static chr_err stage(const struct snapshot_options *o, struct chr_errmsg *msg)
{
    install *in = NULL;
    chr_err err = install_discard(o->data_dir, msg); /* of an attempt before */
    if (!err)
        err = install_open(o->data_dir, o->map_bytes, &in, msg);
    if (!err)
        err = snapshot_file_each(o->input, put_part, in, msg);
    if (!err)
        err = install_commit(in, INSTALL_RESTORE, true, msg);
    install_close(in);
    struct chr_errmsg why;
    if (err && !install_waits(o->data_dir) && install_discard(o->data_dir, &why))
        complain(NULL, "%s", why.text);
    return err;
}

/* A directory that was empty is empty again. */
static void undo_dir(const struct snapshot_options *o, struct data_dir *dir, bool made)
{
    static const char *const names[] = {"log", "db", "tmp", "node.meta", "LOCK"};
    char path[FILES_PATH_MAX];
    struct chr_errmsg why;
    for (size_t i = 0; i < CHR_COUNT_OF(names); i++)
        if (files_join(path, o->data_dir, names[i], &why) || files_remove_tree(path, &why))
            complain(NULL, "%s", why.text);
    data_dir_close(dir);
    if (made)
        (void)rmdir(o->data_dir);
}

static chr_err fill_dir(const struct snapshot_options *o, struct chr_errmsg *msg)
{
    struct data_dir dir;
    bool made = !files_exist(o->data_dir), empty = made || !data_dir_holds_files(o->data_dir);
    chr_err err = data_dir_open(o->data_dir, true, &dir, msg);
    if (err)
        return err;
    /* What a restore before this one was killed in has to come to its end first. */
    err = install_apply(o->data_dir, &dir, NULL, msg);
    if (!err)
        err = stage(o, msg);
    if (!err)
        err = install_apply(o->data_dir, &dir, NULL, msg);
    if (err && empty && !install_waits(o->data_dir))
        undo_dir(o, &dir, made);
    data_dir_close(&dir);
    return err;
}

static int restore(const struct snapshot_options *o)
{
    struct chr_errmsg msg = {{0}};
    struct db_snapshot_info info;
    struct stat st;
    if (!o->input) {
        complain("snapshot", "--input: from where?");
        return EXIT_USAGE;
    }
    if (!o->force && stat(o->data_dir, &st) == 0 && data_dir_holds_files(o->data_dir)) {
        complain(NULL,
                 "%s is not empty; choose another --data-dir, or --force to replace what is there",
                 o->data_dir);
        return EXIT_FAILED;
    }
    chr_log_set_level(CHR_LOG_WARNING); /* what is done is said below */
    chr_err err = snapshot_file_verify(o->input, &info, &msg);
    if (!err)
        err = fill_dir(o, &msg);
    if (err) {
        complain(NULL, "%s", msg.text[0] ? msg.text : chr_strerror(err));
        return EXIT_FAILED;
    }
    printf("%s: state up to entry %" PRIu64 " of %s, a cluster of one\n", o->data_dir, info.index,
           o->input);
    return EXIT_DONE;
}

/* -- Both ---------------------------------------------------------------------------------------*/

static int run(const struct option *table, size_t count, int argc, char **argv,
               int (*command)(const struct snapshot_options *o))
{
    struct snapshot_options o;
    struct options options;
    struct chr_errmsg msg = {{0}};
    int status = EXIT_USAGE;
    set_defaults(&o);
    options_init(&options, table, count, &o);
    if (options_flags(&options, argc, argv, &msg)) {
        complain("snapshot", "%s", msg.text);
    } else if (o.help) {
        snapshot_help(stdout);
        status = EXIT_DONE;
    } else {
        status = command(&o);
    }
    options_free(&options);
    return status;
}

int command_snapshot(int argc, char **argv)
{
    if (argc > 0 && !strcmp(argv[0], "create"))
        return run(create_table, CHR_COUNT_OF(create_table), argc - 1, argv + 1, create);
    if (argc > 0 && !strcmp(argv[0], "restore"))
        return run(restore_table, CHR_COUNT_OF(restore_table), argc - 1, argv + 1, restore);
    for (int i = 0; i < argc; i++) {
        if (!strcmp(argv[i], "--help")) {
            snapshot_help(stdout);
            return EXIT_DONE;
        }
    }
    complain("snapshot", "create or restore?");
    return EXIT_USAGE;
}
