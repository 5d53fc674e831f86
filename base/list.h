/* base/list.h: intrusive doubly linked lists. Membership needs no memory, so moving an element
 * between lists cannot fail. */
#ifndef CHR_BASE_LIST_H
#define CHR_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

#include "base/compiler.h"

struct chr_list {
    struct chr_list *next, *prev; /* a head points at itself when empty */
};

CHR_INLINE void chr_list_init(struct chr_list *head)
{
    head->next = head->prev = head;
}
CHR_INLINE bool chr_list_empty(const struct chr_list *head)
{
    return head->next == head;
}
CHR_INLINE void chr_list_push_back(struct chr_list *head, struct chr_list *node)
{
    node->prev = head->prev;
    node->next = head;
    head->prev->next = node;
    head->prev = node;
}
CHR_INLINE void chr_list_push_front(struct chr_list *head, struct chr_list *node)
{
    node->next = head->next;
    node->prev = head;
    head->next->prev = node;
    head->next = node;
}
/* Leaves the node pointing at itself, so removing twice is harmless. */
CHR_INLINE void chr_list_remove(struct chr_list *node)
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
    node->next = node->prev = node;
}
/* All nodes of `from` into the empty `to`, in their order: whoever is put back into `from`
 * meanwhile waits for the next round. In constant time. */
CHR_INLINE void chr_list_take(struct chr_list *to, struct chr_list *from)
{
    chr_list_init(to);
    if (chr_list_empty(from))
        return;
    *to = *from;
    to->next->prev = to->prev->next = to;
    chr_list_init(from);
}
#define CHR_LIST_FOR(pos, head)                                                                    \
    for (struct chr_list *pos = (head)->next; pos != (head); pos = pos->next)
#define CHR_LIST_FOR_SAFE(pos, tmp, head)                                                          \
    for (struct chr_list *pos = (head)->next, *tmp = pos->next; pos != (head);                     \
         pos = tmp, tmp = pos->next)

#endif
