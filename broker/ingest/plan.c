/* broker/ingest/plan.c: one topic template of one table, compiled. */
#include <string.h>

#include "broker/ingest/internal.h"
#include "proto/mqtt/topic.h"

/* The column of a captured level: as written, else folded to lower case like an unquoted name. */
static int capture_column(const struct db_table_def *table, chr_slice name)
{
    int column = db_table_column(table, name);
    if (column >= 0 || name.len > DB_NAME_BYTES_MAX)
        return column;
    uint8_t folded[DB_NAME_BYTES_MAX];
    for (size_t i = 0; i < name.len; i++)
        folded[i] =
            (uint8_t)(name.ptr[i] >= 'A' && name.ptr[i] <= 'Z' ? name.ptr[i] | 0x20 : name.ptr[i]);
    return db_table_column(table, chr_slice_of(folded, name.len));
}

/* Takes a template apart; marks captured columns. CREATE TABLE has checked it (what is in braces is
 * a column): a level that is none after all matches and captures nothing. */
static chr_err compile_levels(struct chr_arena *arena, const char *text, uint64_t *captured,
                              struct ingest_plan *plan)
{
    chr_slice topic = chr_slice_cstr(text);
    size_t count = mqtt_topic_levels(topic);
    struct ingest_level *levels = CHR_ARENA_ARRAY(arena, struct ingest_level, count);
    struct ingest_plan_capture *captures =
        CHR_ARENA_ARRAY(arena, struct ingest_plan_capture, count);
    chr_slice own = chr_arena_dup(arena, topic);
    if (!levels || !captures || (!own.ptr && topic.len))
        return CHR_ENOMEM;
    struct mqtt_level_iter it = mqtt_level_iter(own);
    chr_slice level;
    uint32_t i = 0;
    for (; mqtt_level_next(&it, &level); i++) {
        levels[i] = (struct ingest_level){.kind = INGEST_LEVEL_TEXT, .text = level};
        if (chr_slice_eq(level, CHR_LIT("#"))) {
            levels[i].kind = INGEST_LEVEL_MANY;
        } else if (chr_slice_eq(level, CHR_LIT("+"))) {
            levels[i].kind = INGEST_LEVEL_ONE;
        } else if (level.len > 2 && level.ptr[0] == '{' && level.ptr[level.len - 1] == '}') {
            levels[i].kind = INGEST_LEVEL_ONE;
            int column = capture_column(plan->table, chr_slice_of(level.ptr + 1, level.len - 2));
            if (column < 0)
                continue;
            captures[plan->captures_count++] =
                (struct ingest_plan_capture){.level = i, .column = (uint16_t)column};
            db_bit_set(captured, (uint32_t)column);
        }
    }
    plan->levels = levels;
    plan->levels_count = i;
    plan->captures = captures;
    return CHR_OK;
}

/* Where a payload goes that is no object: to the only column left over besides the time; else to
 * `value`; else text (and a number that has no other place) to the only STRING or BLOB column. That
 * `value` comes before the STRING makes "abc" for `sensors/esp-001/temp` a reject, not a
 * reading_id. */
static void choose_scalar_columns(struct ingest_plan *plan)
{
    const struct db_table_def *table = plan->table;
    int32_t only = -1, bytes = -1, value = -1;
    unsigned only_count = 0, bytes_count = 0;
    for (uint32_t i = 0; i < plan->fields_count; i++) {
        uint16_t column = plan->fields[i];
        if (column == plan->time_column && plan->fields_count > 1)
            continue;
        only = column;
        only_count++;
        if (db_type_is_bytes(table->columns[column].type)) {
            bytes = column;
            bytes_count++;
        }
        if (strcmp(table->columns[column].name, "value") == 0)
            value = column;
    }
    plan->scalar_column = only_count == 1    ? only
                          : value >= 0       ? value
                          : bytes_count == 1 ? bytes
                                             : -1;
}

/* A table of (…, metric, value) takes `metrics`, unless `metrics` means something of its own. */
static bool can_unpivot(struct ingest_plan *plan, const uint64_t *captured)
{
    const struct db_table_def *table = plan->table;
    int metric = db_table_column(table, CHR_LIT("metric"));
    int value = db_table_column(table, CHR_LIT("value"));
    if (metric < 0 || value < 0 || table->columns[metric].type != DB_STRING ||
        db_bit_get(captured, (uint32_t)metric) || db_bit_get(captured, (uint32_t)value))
        return false;
    for (uint16_t i = 0; i < table->columns_count; i++) {
        const char *name = table->columns[i].name;
        if (strcmp(name, "metrics") == 0 || strncmp(name, "metrics.", 8) == 0)
            return false;
    }
    plan->metric_column = (uint16_t)metric;
    plan->value_column = (uint16_t)value;
    return true;
}

chr_err ingest__plan_compile(struct chr_arena *arena, const struct db_table_def *table,
                             uint32_t slot, uint32_t template_index, struct ingest_plan *plan)
{
    *plan = (struct ingest_plan){
        .table = table,
        .slot = slot,
        .template_index = template_index,
        .format = table->format,
        .time_column = table->time_column,
    };
    uint64_t captured[DB_BIT_WORDS(DB_COLUMNS_MAX)] = {0};
    if (template_index != UINT32_MAX) {
        chr_err err = compile_levels(arena, table->topics[template_index], captured, plan);
        if (err)
            return err;
    }
    uint16_t *fields = CHR_ARENA_ARRAY(arena, uint16_t, table->columns_count);
    if (!fields)
        return CHR_ENOMEM;
    for (uint16_t i = 0; i < table->columns_count; i++)
        if (!db_bit_get(captured, i))
            fields[plan->fields_count++] = i;
    plan->fields = fields;
    choose_scalar_columns(plan);
    plan->unpivot = can_unpivot(plan, captured);
    return ingest__keys_compile(arena, table, captured, plan->unpivot, &plan->keys);
}

static int level_compare(const struct ingest_level *a, const struct ingest_level *b)
{
    if (a->kind != b->kind)
        return a->kind < b->kind ? -1 : 1;
    return a->kind == INGEST_LEVEL_TEXT ? chr_slice_cmp(a->text, b->text) : 0;
}

int ingest__plan_compare(const void *va, const void *vb)
{
    const struct ingest_plan *a = va, *b = vb;
    for (uint32_t i = 0; i < a->levels_count && i < b->levels_count; i++) {
        int c = level_compare(&a->levels[i], &b->levels[i]);
        if (c)
            return c;
    }
    if (a->levels_count != b->levels_count)
        return a->levels_count < b->levels_count ? -1 : 1;
    if (a->slot != b->slot)
        return a->slot < b->slot ? -1 : 1;
    return a->template_index < b->template_index ? -1 : a->template_index > b->template_index;
}
