/* broker/auth/acl.h: access by topic, from a file as Mosquitto writes it. Pure.
 *
 *     topic readwrite public/#          before any `user`: for anonymous clients
 *     user alice
 *     topic read sensors/#              without a word: readwrite
 *     topic deny sensors/secret/#
 *     pattern readwrite devices/%c/#    for everybody; %c client id, %u user name
 *
 * As in Mosquitto: a client's own rules first, then the patterns; of each, `deny` before the
 * others, wherever it stands; what no rule allows is denied; rules do not match topics that begin
 * with `$` unless they begin with it, too. A client whose name or id has a `+` or `#` gets nothing
 * from patterns, and nothing from a token's filter in which that name would stand.
 *
 * Mosquitto does not look at subscriptions with these rules, only at what is delivered. Here a
 * filter is granted when something it matches could be read: `#` is, for whoever may read anything,
 * while `secret/#` is refused to whom `secret` is not open, instead of staying silent. */
#ifndef CHR_BROKER_AUTH_ACL_H
#define CHR_BROKER_AUTH_ACL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/slice.h"

#define ACL_FILE_BYTES_MAX (64u << 20)
#define ACL_LINE_BYTES_MAX 70000u

/* A set. */
#define ACL_READ  0x1
#define ACL_WRITE 0x2

/* What decided. */
struct acl_reason {
    uint32_t line;    /* of the ACL file; 0: none */
    const char *text; /* "denied by a rule", "no rule allows it", …; static */
};

/* Whose rules are asked for. */
struct acl_subject {
    chr_slice user; /* "" anonymous */
    chr_slice client_id;
};

struct acl;      /* a file; immutable */
struct acl_list; /* rules of one user, the patterns, or a token's claims; immutable once filled */

/* text: of a whole file; path: for messages ("acl.conf:3: …"). CHR_EINVAL, CHR_ENOMEM */
CHR_MUST_USE chr_err acl_parse(chr_slice text, const char *path, struct acl **out,
                               struct chr_errmsg *msg);
void acl_free(struct acl *acl); /* accepts NULL */
uint32_t acl_rules_count(const struct acl *acl);

/* access: one of ACL_READ and ACL_WRITE. topic: a valid name. */
bool acl_allows(const struct acl *acl, const struct acl_subject *subject, unsigned access,
                chr_slice topic, struct acl_reason *why);
/* Could anything that the filter matches be read? shared: may all of it, by one rule? */
bool acl_allows_filter(const struct acl *acl, const struct acl_subject *subject, chr_slice filter,
                       bool shared, struct acl_reason *why);

/* Rules that come from elsewhere; one reference. */
CHR_MUST_USE chr_err acl_list_new(struct acl_list **out);
void acl_list_ref(struct acl_list *list);
void acl_list_unref(struct acl_list *list); /* accepts NULL */
/* access 0: deny. filter is copied; it may hold %c and %u when `pattern`. CHR_EINVAL: not a topic
 * filter. CHR_ENOMEM */
CHR_MUST_USE chr_err acl_list_add(struct acl_list *list, unsigned access, chr_slice filter,
                                  bool pattern, uint32_t line);
bool acl_list_allows(const struct acl_list *list, const struct acl_subject *subject,
                     unsigned access, chr_slice topic, struct acl_reason *why);
bool acl_list_allows_filter(const struct acl_list *list, const struct acl_subject *subject,
                            chr_slice filter, bool shared, struct acl_reason *why);

/* Is there a topic that both filters match? (for tests) */
bool acl_filters_overlap(chr_slice a, chr_slice b);
/* Does `outer` match everything that `inner` matches? */
bool acl_filter_covers(chr_slice outer, chr_slice inner);

#endif
