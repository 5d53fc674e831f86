#include "broker/net/limits.h"

#include <sys/resource.h>

#include "base/log.h"
#include "broker/config.h"
#include "broker/net/loop.h"
#include "broker/node.h"

const struct limit_info limit_infos[LIMITS] = {
    [LIMIT_PUBLISH_RATE] = {"publish_rate", "max_publish_rate",
                            "a client publishes more often than it may"},
    [LIMIT_PUBLISH_BYTES] = {"publish_bytes", "max_publish_bytes",
                             "a client publishes more bytes than it may"},
    [LIMIT_PACKET_SIZE] = {"packet_size", "max_packet_size", "a packet is too large"},
    [LIMIT_MESSAGE_SIZE] = {"message_size", "message_size_limit", "a message is too large"},
    [LIMIT_SUBSCRIPTIONS] = {"subscriptions", "max_subscriptions",
                             "a client has as many subscriptions as it may"},
    [LIMIT_TOPIC_LEVELS] = {"topic_levels", "max_topic_levels", "a topic has too many levels"},
    [LIMIT_RETAINED] = {"retained", "max_retained_messages, max_retained_bytes",
                        "a message was delivered but not retained"},
    [LIMIT_QUEUE] = {"queue", "max_queued_messages, max_queued_bytes",
                     "the queue of a session is full"},
    [LIMIT_QUEUES] = {"queues", "max_queued_total", "the queues of all sessions are full"},
    [LIMIT_OUTPUT] = {"output", "max_output_bytes, max_output_total", "a client reads too slowly"},
    [LIMIT_SESSIONS] = {"sessions", "max_durable_sessions",
                        "there are as many durable sessions as there may be"},
    [LIMIT_PARTIAL] = {"partial", "max_partial_bytes",
                       "packets that have not arrived whole hold all the room there is for them"},
};

void limit_hit(struct broker_loop *loop, enum limit limit, chr_slice client, const char *address)
{
    struct limit_state *s = &loop->limits;
    atomic_store_explicit(&s->hits[limit],
                          atomic_load_explicit(&s->hits[limit], memory_order_relaxed) + 1,
                          memory_order_relaxed);
    s->unlogged[limit]++;
    if (s->logged_us[limit] && loop->now_mono_us - s->logged_us[limit] < LIMIT_LOG_INTERVAL_US)
        return;
    const struct limit_info *info = &limit_infos[limit];
    chr_log_notice("limits", info->text, CHR_KV_S("client", client),
                   CHR_KV_C("address", address ? address : ""), CHR_KV_C("limit", info->setting),
                   CHR_KV_U("times", s->unlogged[limit]));
    s->logged_us[limit] = loop->now_mono_us;
    s->unlogged[limit] = 0;
}

void limits_refresh(struct broker_loop *loop)
{
    const struct broker_config *config = loop->node->config;
    uint64_t loops = CHR_MAX(config->loops, 1u);
    loop->publish_limited = config->max_publish_rate || config->max_publish_bytes;
    /* The largest packet must be receivable. */
    loop->partial_bytes_max = config->max_partial_bytes ? CHR_MAX(config->max_partial_bytes / loops,
                                                                  (uint64_t)config->max_packet_size)
                                                        : 0;
    loop->unsent_bytes_max = config->max_output_total / loops;
    atomic_store_explicit(&loop->shown_bytes[0], loop->partial_bytes, memory_order_relaxed);
    atomic_store_explicit(&loop->shown_bytes[1], loop->held_bytes, memory_order_relaxed);
    atomic_store_explicit(&loop->shown_bytes[2], loop->unsent_bytes, memory_order_relaxed);
}

void limits_raise_descriptors(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) || limit.rlim_cur >= limit.rlim_max)
        return;
    rlim_t before = limit.rlim_cur;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) == 0)
        chr_log_info("net", "limit of descriptors raised", CHR_KV_U("from", before),
                     CHR_KV_U("to", limit.rlim_cur));
}
