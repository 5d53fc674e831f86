#include "broker/commands/settings_reload.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"

void settings_reload_init(struct settings_reload *reload, const struct settings *first,
                          bool cluster, int argc, char **argv)
{
    *reload =
        (struct settings_reload){.now = first, .cluster = cluster, .argc = argc, .argv = argv};
}

struct changes {
    unsigned taken;
    char names[512], waiting[512]; /* "log_level max_keepalive" */
};

static void add_name(char *list, size_t size, const char *name)
{
    size_t len = strlen(list);
    if (len)
        len += (size_t)snprintf(list + len, size - len, " ");
    for (; *name && len + 1 < size; name++)
        list[len++] = *name == '-' ? '_' : *name;
    list[len] = 0;
}

static void note_change(void *ctx, const struct option *option, bool taken)
{
    struct changes *changes = ctx;
    char *list = taken ? changes->names : changes->waiting;
    if (taken)
        changes->taken++;
    /* Names that no longer fit are left out as a whole. */
    if (strlen(list) + strlen(option->name) + 2 < sizeof changes->names)
        add_name(list, sizeof changes->names, option->name);
}

static void refuse(const char *why)
{
    chr_log_error("node", "settings refused, the old ones stay in force", CHR_KV_C("reason", why));
}

void settings_reload_run(struct settings_reload *reload, struct broker_node *node)
{
    struct chr_errmsg msg = {{0}};
    struct changes changes = {0};
    struct settings *fresh = calloc(1, sizeof *fresh);
    if (!fresh) {
        refuse("out of memory");
        return;
    }
    chr_err err = settings_load(fresh, reload->cluster, reload->argc, reload->argv, &msg);
    if (!err)
        settings_take(reload->now, fresh, note_change, &changes);
    if (!err)
        err = settings_check_exposed(fresh, &msg);
    if (!err && changes.taken && reload->kept_count == SETTINGS_RELOADS_MAX)
        err = chr_fail(&msg, CHR_EFULL, "they changed %d times since the node started; restart it",
                       SETTINGS_RELOADS_MAX);
    if (!err)
        err = node_reload(node, changes.taken ? &fresh->config : &reload->now->config, &msg);
    if (err) {
        refuse(msg.text);
    } else {
        if (changes.waiting[0])
            chr_log_warning("node", "settings that need a restart keep their values",
                            CHR_KV_C("settings", changes.waiting));
        chr_log_notice("node", "settings read again", CHR_KV_U("changed", changes.taken),
                       CHR_KV_C("settings", changes.names));
    }
    if (!err && changes.taken) {
        reload->kept[reload->kept_count++] = fresh;
        reload->now = fresh;
        return;
    }
    settings_free(fresh);
    free(fresh);
}

void settings_reload_free(struct settings_reload *reload)
{
    while (reload->kept_count) {
        settings_free(reload->kept[--reload->kept_count]);
        free(reload->kept[reload->kept_count]);
    }
}
