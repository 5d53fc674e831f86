#include "broker/run_file.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "broker/auth/auth.h"
#include "broker/config.h"
#include "broker/files.h"
#include "broker/node.h"

#define NAME "run"

void run_file_write(const struct broker_node *node)
{
    const struct broker_config *config = node->config;
    char path[FILES_PATH_MAX], token[AUTH_OWN_TOKEN_BYTES], text[512];
    struct chr_errmsg msg = {{0}};
    authority_own_token(node->authority, token);
    int n = snprintf(text, sizeof text, "mqtt %s\nadmin %s\ntoken %s\n", node->mqtt_address,
                     node->admin_address, token);
    chr_err err = files_join(path, config->data_dir, NAME, &msg);
    if (!err)
        err = files_replace(path, chr_slice_of((const uint8_t *)text, (size_t)n), &msg);
    explicit_bzero(token, sizeof token);
    explicit_bzero(text, sizeof text);
    if (err)
        chr_log_warning("node", "commands on this data directory won't find the node",
                        CHR_KV_C("detail", msg.text));
}

void run_file_remove(const struct broker_node *node)
{
    const struct broker_config *config = node->config;
    char path[FILES_PATH_MAX];
    if (files_join(path, config->data_dir, NAME, NULL) == CHR_OK)
        (void)unlink(path);
}

chr_err run_file_read(const char *data_dir, struct run_file *out, struct chr_errmsg *msg)
{
    char path[FILES_PATH_MAX];
    struct chr_buf text;
    memset(out, 0, sizeof *out);
    chr_buf_init(&text, 4096);
    chr_err err = files_join(path, data_dir, NAME, msg);
    if (!err)
        err = files_read(path, &text, msg);
    if (!err) {
        chr_buf_add_u8(&text, 0);
        const char *admin = strstr((const char *)text.ptr, "\nadmin ");
        if (text.failed || !admin ||
            sscanf(admin, " admin %79s token %79s", out->admin, out->token) != 2)
            err = chr_fail(msg, CHR_ECORRUPT, "%s is damaged", path);
    }
    chr_buf_free(&text);
    return err;
}
