#include "broker/session/numbered.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"

void numbered_out_init(struct numbered_out *out, uint64_t bytes_max)
{
    *out = (struct numbered_out){.first_number = 1, .unsent_number = 1, .bytes_max = bytes_max};
}

static uint64_t bytes_of(const struct numbered_item *item)
{
    return sizeof *item + item->groups_count * sizeof item->groups[0] +
           message_bytes(item->message);
}

static void drop_first(struct numbered_out *out)
{
    struct numbered_item *item = out->first;
    uint64_t bytes = bytes_of(item);
    if (item == out->unsent) {
        out->unsent = item->next;
        out->unsent_number++;
    } else {
        out->sent_bytes -= bytes;
    }
    out->bytes -= bytes;
    out->first = item->next;
    out->first_number++;
    if (!out->first)
        out->last = NULL;
    message_unref(item->message);
    free(item);
}

uint64_t numbered_out_clear(struct numbered_out *out)
{
    uint64_t count = 0;
    for (; out->first; count++)
        drop_first(out);
    CHR_ASSERT(out->bytes == 0 && out->sent_bytes == 0);
    numbered_out_init(out, out->bytes_max);
    return count;
}

chr_err numbered_push(struct numbered_out *out, struct message *message, uint64_t publisher,
                      uint64_t after, bool plain, const uint64_t *groups, uint32_t groups_count)
{
    uint64_t most = message->qos ? out->bytes_max : out->bytes_max / 2;
    uint64_t bytes =
        sizeof(struct numbered_item) + groups_count * sizeof groups[0] + message_bytes(message);
    if (out->bytes + bytes > most)
        return CHR_EFULL;
    struct numbered_item *item = malloc(sizeof *item + groups_count * sizeof groups[0]);
    if (!item)
        return CHR_ENOMEM;
    *item = (struct numbered_item){.message = message,
                                   .publisher = publisher,
                                   .after = after,
                                   .plain = plain,
                                   .groups_count = groups_count};
    if (groups_count)
        memcpy(item->groups, groups, groups_count * sizeof groups[0]);
    message_ref(message);
    if (out->last)
        out->last->next = item;
    else
        out->first = item;
    out->last = item;
    if (!out->unsent)
        out->unsent = item;
    out->bytes += bytes;
    return CHR_OK;
}

void numbered_sent(struct numbered_out *out)
{
    CHR_ASSERT(out->unsent);
    out->sent_bytes += bytes_of(out->unsent);
    out->unsent = out->unsent->next;
    out->unsent_number++;
}

bool numbered_acknowledged(struct numbered_out *out, uint64_t number)
{
    uint64_t before = out->first_number;
    /* One that was sent, then rewound, may be acknowledged before it goes again. */
    while (out->first && out->first_number <= number)
        drop_first(out);
    return out->first_number != before;
}

uint64_t numbered_rewind(struct numbered_out *out)
{
    uint64_t count = out->unsent_number - out->first_number;
    out->unsent = out->first;
    out->unsent_number = out->first_number;
    out->sent_bytes = 0;
    return count;
}

enum numbered_verdict numbered_take(struct numbered_in *in, uint64_t boot, uint64_t number)
{
    if (boot < in->boot)
        return NUMBERED_OLD;
    if (boot > in->boot)
        *in = (struct numbered_in){.boot = boot};
    if (number <= in->last)
        return NUMBERED_HAD;
    if (number > in->last + 1)
        return NUMBERED_GAP;
    in->last = number;
    return NUMBERED_TAKE;
}
