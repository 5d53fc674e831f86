#include "sqlfront/result/json_join.h"

#include "sqlfront/result/json_read.h"

static bool is(chr_slice key, const char *name)
{
    return chr_slice_eq(key, chr_slice_cstr(name));
}

static void add_member(struct json_join *join, chr_slice key, struct chr_buf *out)
{
    chr_buf_add_cstr(out, join->any_members ? ",\"" : "\"");
    chr_buf_add_slice(out, key);
    chr_buf_add_cstr(out, "\":");
    join->any_members = true;
}

static void add_rows(struct json_join *join, chr_slice rows, struct chr_buf *out)
{
    chr_slice inner = rows.len > 2 ? chr_slice_of(rows.ptr + 1, rows.len - 2) : (chr_slice){0};
    if (!inner.len)
        return;
    if (join->any_rows)
        chr_buf_add_u8(out, ',');
    chr_buf_add_slice(out, inner);
    join->any_rows = true;
}

void json_join_part(struct json_join *join, chr_slice part, bool first, bool last,
                    struct chr_buf *out)
{
    if (first && last) {
        chr_buf_add_slice(out, part);
        return;
    }
    if (!join->began)
        chr_buf_add_u8(out, '{');
    join->began = true;
    struct json_iter iter = json_iter_of(part);
    for (chr_slice key, value; json_next(&iter, &key, &value);) {
        if (is(key, "part") || is(key, "last"))
            continue;
        if (is(key, "rows")) {
            if (!join->in_rows) {
                add_member(join, key, out);
                chr_buf_add_u8(out, '[');
                join->in_rows = true;
            }
            add_rows(join, value, out);
        } else if (!join->in_rows) {
            add_member(join, key, out);
            chr_buf_add_slice(out, value);
        }
    }
    if (!last)
        return;
    /* What follows the rows stands in the last part alone, whichever side of them it is on there.
     */
    bool rows_are_closed = !join->in_rows;
    iter = json_iter_of(part);
    if (!rows_are_closed)
        chr_buf_add_u8(out, ']');
    for (chr_slice key, value; !rows_are_closed && json_next(&iter, &key, &value);) {
        if (is(key, "part") || is(key, "last") || is(key, "rows") || is(key, "columns"))
            continue;
        add_member(join, key, out);
        chr_buf_add_slice(out, value);
    }
    chr_buf_add_u8(out, '}');
}
