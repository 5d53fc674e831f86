/* broker/auth/audit.c: a line for each denial, as long as there are not too many. */
#include "base/log.h"
#include "broker/auth/internal.h"

/* May a line be written now? *skipped: how many were not since the last one. */
static bool line_allowed(struct authority *a, uint64_t *skipped)
{
    int64_t second = chr_clock_mono_us(a->clock) / 1000000;
    pthread_mutex_lock(&a->audit_lock);
    if (second != a->audit_second) {
        a->audit_second = second;
        a->audit_lines = 0;
    }
    bool allowed = a->audit_lines < AUDIT_LINES_PER_SECOND;
    if (allowed) {
        a->audit_lines++;
        *skipped = a->audit_skipped;
        a->audit_skipped = 0;
    } else {
        a->audit_skipped++;
    }
    pthread_mutex_unlock(&a->audit_lock);
    return allowed;
}

void audit_denied(struct authority *a, const struct principal *p, const char *address,
                  const char *operation, chr_slice object, const struct acl_reason *why)
{
    uint64_t skipped = 0;
    atomic_fetch_add_explicit(&a->denials, 1, memory_order_relaxed);
    if (!line_allowed(a, &skipped)) {
        atomic_fetch_add_explicit(&a->denials_unlogged, 1, memory_order_relaxed);
        return;
    }
    object.len = CHR_MIN(object.len, (size_t)256);
    chr_log_notice("audit", "denied", CHR_KV_C("operation", operation), CHR_KV_S("object", object),
                   CHR_KV_S("user", p ? p->user : CHR_LIT("")),
                   CHR_KV_C("role", p ? db_role_name(p->role) : ""),
                   CHR_KV_S("client", p ? p->client_id : CHR_LIT("")),
                   CHR_KV_C("address", address ? address : ""),
                   CHR_KV_C("reason", why && why->text ? why->text : ""),
                   CHR_KV_U("line", why ? why->line : 0), CHR_KV_U("unlogged_before", skipped));
}
