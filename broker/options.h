/* broker/options.h: one table of settings, three ways to say them.
 *
 *     a line of a config file   <   an environment variable   <   a flag
 *     hot_limit 64MiB               CHRONOS_HOT_LIMIT=64MiB        --hot-limit 64MiB
 *
 * `-` and `_` are the same in names, `key value` and `key = value` in files. What is not in the
 * table is an error that names it, where it stands, and the nearest name that is. Values go
 * straight into the fields of a struct; each remembers where it came from. Start only, one thread.
 *
 * Sections: an option may open one (`listener 8883`); the keys of the section table that follow it,
 * in the same file or on the same command line, fill that section's own struct. Those before the
 * first one, and those of the environment, fill the default section's. A name that both tables have
 * means the section's while one is open, else the main table's. */
#ifndef CHR_BROKER_OPTIONS_H
#define CHR_BROKER_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/arena.h"
#include "base/err.h"

enum option_kind {
    OPTION_HEADING,     /* help only: `help` is the title of what follows */
    OPTION_TEXT,        /* const char *, not empty */
    OPTION_BOOL,        /* bool: true, false, yes, no, on, off, 1, 0; a bare name means true */
    OPTION_U16,         /* uint16_t within min..max */
    OPTION_U32,         /* uint32_t within min..max */
    OPTION_BYTES32,     /* uint32_t: "64KiB" */
    OPTION_BYTES64,     /* uint64_t: "64MiB" */
    OPTION_SECONDS16,   /* uint16_t: "60" or "1m"; whole seconds */
    OPTION_SECONDS32,   /* uint32_t */
    OPTION_MS32,        /* uint32_t milliseconds: "250ms", "30s"; the unit is needed, 0 excepted */
    OPTION_CHOICE,      /* an enum: one of the words of `choices` */
    OPTION_CUSTOM,      /* what `set` makes of it; it takes a value */
    OPTION_CUSTOM_FLAG, /* `set` is called with NULL; it takes no value */
    OPTION_SECTION,     /* as OPTION_CUSTOM; may be said several times, each opens a section */
    OPTION_LATER,       /* known but refused: `help` says why */
    OPTION_NO_MEANING,  /* known, taken with any value and without effect: `help` says why */
    OPTION_ONLY,        /* one value is taken, `choices`' first word; others are refused: `help` */
    OPTION_INCLUDE,     /* in a file: DIR, whose *.conf are read here, in their order of bytes */
};

enum option_scope {
    OPTION_ANYWHERE,
    OPTION_FLAG_ONLY,       /* neither in files nor in the environment */
    OPTION_NOT_ENVIRONMENT, /* files and flags: others set a variable of this name (CHRONOS_PORT) */
    OPTION_IN_SECTIONS,     /* of an open section, and when *options.section.everything */
};

struct option_choice {
    const char *word; /* NULL ends the list */
    unsigned value;
};

struct options;

/* Sets the field(s) in target. value: zero-terminated, lives as long as the options. The message
 * says what is wrong with the value, without the option's name: "\"x\" is not a port". */
typedef chr_err option_set_fn(struct options *options, void *target, const char *value,
                              struct chr_errmsg *msg);

struct option {
    enum option_kind kind;
    const char *name;  /* "hot-limit" */
    const char *alias; /* another name, NULL: none */
    char letter;       /* -x; 0: none */
    enum option_scope scope;
    size_t offset;     /* of the field in the target; options of one field exclude each other */
    uint64_t min, max; /* numbers, in the field's unit; max 0: all the field holds */
    const struct option_choice *choices;
    option_set_fn *set;
    const char *value; /* "BYTES", for the help; NULL: takes none */
    const char *help;
    bool reload;            /* may change while the node runs (options_take) */
    bool repeats;           /* may be said several times in a file; `set` gathers them */
    enum option_kind field; /* OPTION_CUSTOM: which kind the field has; 0: it is not compared */
    const char *standard;   /* the default, for documents, where the field can't tell; or NULL */
    const char *mosquitto;  /* its name in mosquitto.conf(5) if another than `name` and `alias` */
};

enum option_source { OPTION_UNSET, OPTION_FROM_FILE, OPTION_FROM_ENVIRONMENT, OPTION_FROM_FLAG };

#define OPTIONS_MAX       256
#define OPTIONS_FILES_MAX 256 /* of all include_dir together */

struct option_section {
    const struct option *table; /* borrowed, [count]; NULL: there are no sections */
    size_t count;               /* at most OPTIONS_MAX */
    void *target;               /* borrowed; of the section that is filled now */
    void *default_target;
    const bool *everything;      /* borrowed; NULL: false */
    bool open;                   /* `target` is one that an option opened */
    bool default_set;            /* some option of the default section was set */
    unsigned lines[OPTIONS_MAX]; /* of the section filled now, in this file */
};

struct options {
    const struct option *table; /* borrowed, [count] */
    size_t count;               /* at most OPTIONS_MAX */
    void *target;               /* borrowed; filled with defaults before */
    struct chr_arena arena;     /* owns what the target's strings point to */
    enum option_source source[OPTIONS_MAX];
    unsigned line[OPTIONS_MAX];    /* OPTION_FROM_FILE: where */
    const char *path[OPTIONS_MAX]; /* in the arena */
    struct option_section section;
    unsigned files;       /* read by include_dir */
    bool included;        /* the file that is read now is one of them */
    const char *path_now; /* where the value stands that is being set; NULL: not in a file */
    unsigned line_now;
};

/* Does not allocate. */
void options_init(struct options *options, const struct option *table, size_t count, void *target);
/* Before anything is set. default_target: borrowed; filled with defaults before. */
void options_sections(struct options *options, const struct option *table, size_t count,
                      void *default_target, const bool *everything);
/* From a set function: the section's options that follow go to `target`. */
void options_open_section(struct options *options, void *target);
/* The target's strings go with it. */
void options_free(struct options *options);

/* Each sets what it finds over what was set before; call them in the order file, environment,
 * flags. CHR_EINVAL with a sentence that names the option, its place and what is wrong.
 *
 * Flags: argv[0] is the first argument, not the program. `--name value`, `--name=value`, `-x
 * value`; the last of several wins. */
CHR_MUST_USE chr_err options_flags(struct options *options, int argc, char **argv,
                                   struct chr_errmsg *msg);
/* `environment` as environ is: CHRONOS_<NAME>=value. Names that are not in the table are somebody
 * else's. */
CHR_MUST_USE chr_err options_environment(struct options *options, char *const *environment,
                                         struct chr_errmsg *msg);
/* The same key twice is an error: one of them would be believed in vain. */
CHR_MUST_USE chr_err options_file(struct options *options, const char *path,
                                  struct chr_errmsg *msg);
/* As options_file, over a text in memory; path is for messages and is copied. */
CHR_MUST_USE chr_err options_text(struct options *options, const char *path, chr_slice text,
                                  struct chr_errmsg *msg);

/* Where an option was set last. name is in the table. */
enum option_source options_source(const struct options *options, const char *name);
/* "chronos.conf:7: password_file: ", "--password-file: ", "CHRONOS_PASSWORD_FILE: ": for messages
 * of checks that come after reading. "" when it was not set or is not in the table. */
const char *options_place(const struct options *options, const char *name, char *out, size_t size);

/* Goes through a table and puts into target what fresh says of the options that may change while
 * the node runs. changed() hears of each that differs: `taken`, or it needs a restart. Strings are
 * not copied. Options without a field (sections, customs that don't name one) are passed over. */
typedef void options_changed_fn(void *ctx, const struct option *option, bool taken);
void options_take(const struct option *table, size_t count, void *target, const void *fresh,
                  options_changed_fn *changed, void *ctx);
/* The value of a flag before anything is set, NULL when it is not given: for --config and --help,
 * which decide what is read first. A flag without value gives "". */
const char *options_peek(const struct options *options, int argc, char **argv, const char *name);

/* An option's value in `target` as one would write it, "" when it has none. */
void options_value(const struct option *option, const void *target, char *out, size_t size);

/* The table as text for a terminal, defaults taken from `defaults` (a target). */
void options_help(FILE *out, const struct option *table, size_t count, const void *defaults);

/* The word of a NULL-terminated list that was most likely meant, NULL when none is near. */
const char *options_nearest(const char *word, const char *const *words);

#endif
