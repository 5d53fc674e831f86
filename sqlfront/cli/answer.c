#include "sqlfront/cli/answer.h"

#include <string.h>

#include "base/num.h"
#include "sqlfront/result/json_read.h"

#define BUF_BYTES_MAX (256u << 20)

void cli_answer_begin(struct cli_answer *answer, const struct cli_print *print)
{
    *answer = (struct cli_answer){.print = *print};
    chr_buf_init(&answer->buf, BUF_BYTES_MAX);
}

enum sql_format cli_print_wants(const struct cli_print *print)
{
    return print->expanded ? SQL_FORMAT_JSON : print->format;
}

const char *cli_format_name(enum sql_format format)
{
    switch (format) {
    case SQL_FORMAT_CSV:
        return "csv";
    case SQL_FORMAT_NDJSON:
        return "ndjson";
    case SQL_FORMAT_TABLE:
        return "table";
    default:
        return "json";
    }
}

static void print(struct cli_answer *answer, chr_slice bytes)
{
    if (!bytes.len)
        return;
    (void)fwrite(bytes.ptr, 1, bytes.len, answer->print.out);
    answer->open_line = bytes.ptr[bytes.len - 1] != '\n';
}

/* ---- Expanded ---------------------------------------------------------------------------------
 */

/* Columns that text takes on a terminal, taking every character for one. */
static size_t width_of(chr_slice text)
{
    size_t width = 0;
    for (size_t i = 0; i < text.len; i++)
        width += (text.ptr[i] & 0xc0) != 0x80;
    return width;
}

/* On one line, harmless to the terminal. */
static void add_harmless(struct chr_buf *out, chr_slice text)
{
    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = text.ptr[i];
        /* C1 controls are two bytes, of which a terminal may obey the character. */
        bool c1 = c == 0xc2 && i + 1 < text.len && text.ptr[i + 1] < 0xa0;
        if (c == '\n')
            chr_buf_add_cstr(out, "\\n");
        else if (c == '\t')
            chr_buf_add_cstr(out, "\\t");
        else if (c < 0x20 || c == 0x7f || c1)
            chr_buf_addf(out, "\\x%02x", c1 ? text.ptr[++i] : c);
        else
            chr_buf_add_u8(out, c);
    }
}

static void add_value(struct chr_buf *out, chr_slice value)
{
    if (chr_slice_eq(value, CHR_LIT("null")))
        return;
    struct chr_buf text;
    chr_buf_init(&text, BUF_BYTES_MAX);
    json_text(value, &text);
    add_harmless(out, chr_buf_slice(&text));
    chr_buf_free(&text);
}

/* -[ RECORD 1 ]----
 * name | value      */
static void print_record(struct cli_answer *answer, chr_slice columns, chr_slice row, size_t width)
{
    struct chr_buf *out = &answer->buf;
    chr_buf_reset(out);
    chr_buf_addf(out, "-[ RECORD %llu ]", (unsigned long long)++answer->records);
    for (size_t i = out->len; i < width + 12; i++)
        chr_buf_add_u8(out, '-');
    chr_buf_add_u8(out, '\n');
    struct json_iter names = json_iter_of(columns), values = json_iter_of(row);
    for (chr_slice key, column, value, name;
         json_next(&names, &key, &column) && json_next(&values, &key, &value);) {
        size_t start = out->len;
        if (json_member(column, "name", &name))
            add_value(out, name);
        size_t used = width_of(chr_slice_of(out->ptr + start, out->len - start));
        for (; used < width; used++)
            chr_buf_add_u8(out, ' ');
        chr_buf_add_cstr(out, " | ");
        add_value(out, value);
        chr_buf_add_u8(out, '\n');
    }
    print(answer, chr_buf_slice(out));
}

static size_t widest_name(chr_slice columns)
{
    struct chr_buf text;
    chr_buf_init(&text, BUF_BYTES_MAX);
    struct json_iter iter = json_iter_of(columns);
    size_t width = 0;
    for (chr_slice key, column, name; json_next(&iter, &key, &column);) {
        chr_buf_reset(&text);
        if (json_member(column, "name", &name))
            add_value(&text, name);
        width = CHR_MAX(width, width_of(chr_buf_slice(&text)));
    }
    chr_buf_free(&text);
    return width;
}

static void print_expanded(struct cli_answer *answer, chr_slice part, bool last)
{
    chr_slice columns, rows, value;
    if (json_member(part, "rows", &rows) && json_member(part, "columns", &columns)) {
        size_t width = widest_name(columns);
        struct json_iter iter = json_iter_of(rows);
        for (chr_slice key, row; json_next(&iter, &key, &row);)
            print_record(answer, columns, row, width);
        if (last)
            fprintf(answer->print.out, "(%llu row%s)\n", (unsigned long long)answer->records,
                    answer->records == 1 ? "" : "s");
    } else if (json_member(part, "command", &value)) {
        chr_buf_reset(&answer->buf);
        json_text(value, &answer->buf);
        if (json_member(part, "row_count", &value)) {
            chr_buf_add_u8(&answer->buf, ' ');
            chr_buf_add_slice(&answer->buf, value);
        }
        chr_buf_add_u8(&answer->buf, '\n');
        print(answer, chr_buf_slice(&answer->buf));
    }
}

/* ---- Parts ------------------------------------------------------------------------------------
 */

void cli_answer_part(struct cli_answer *answer, chr_slice bytes, bool first, bool last,
                     bool is_error)
{
    struct sql_error error;
    bool looks_like = is_error || chr_slice_starts(bytes, CHR_LIT("{\"error\":"));
    if (looks_like && cli_error_read(bytes, &error)) {
        answer->failed = true;
        answer->error = error;
        /* A document that has begun is closed, with what went wrong inside. */
        if (answer->print.expanded || !answer->join.began)
            return;
    }
    if (answer->print.expanded) {
        print_expanded(answer, bytes, last);
    } else if (answer->print.format == SQL_FORMAT_JSON) {
        chr_buf_reset(&answer->buf);
        json_join_part(&answer->join, bytes, first, last, &answer->buf);
        print(answer, chr_buf_slice(&answer->buf));
    } else {
        print(answer, bytes);
    }
}

void cli_answer_end(struct cli_answer *answer)
{
    if (answer->open_line)
        fputc('\n', answer->print.out);
    answer->open_line = false;
    chr_buf_free(&answer->buf);
}

/* ---- Errors -----------------------------------------------------------------------------------
 */

static void copy_text(chr_slice text, char *out, size_t size)
{
    size_t len = CHR_MIN(text.len, size - 1);
    if (len)
        memcpy(out, text.ptr, len);
    out[len] = 0;
}

static void copy_json(chr_slice object, const char *key, char *out, size_t size)
{
    chr_slice value;
    out[0] = 0;
    if (!json_member(object, key, &value) || chr_slice_eq(value, CHR_LIT("null")))
        return;
    struct chr_buf text;
    chr_buf_init(&text, BUF_BYTES_MAX);
    json_text(value, &text);
    copy_text(chr_buf_slice(&text), out, size);
    chr_buf_free(&text);
}

/* The rest of the line that begins with prefix, anywhere in text. */
static bool line_after(chr_slice text, const char *prefix, chr_slice *rest)
{
    chr_slice head = chr_slice_cstr(prefix);
    while (text.len) {
        const uint8_t *end = memchr(text.ptr, '\n', text.len);
        size_t len = end ? (size_t)(end - text.ptr) : text.len;
        chr_slice line = chr_slice_of(text.ptr, len);
        if (chr_slice_starts(line, head)) {
            *rest = chr_slice_of(line.ptr + head.len, line.len - head.len);
            return true;
        }
        len += end != NULL;
        text = chr_slice_of(text.ptr + len, text.len - len);
    }
    return false;
}

static bool read_json_error(chr_slice bytes, struct sql_error *error)
{
    chr_slice object, value;
    if (!json_member(bytes, "error", &object))
        return false;
    copy_json(object, "code", error->sqlstate, sizeof error->sqlstate);
    copy_json(object, "message", error->message, sizeof error->message);
    copy_json(object, "detail", error->detail, sizeof error->detail);
    copy_json(object, "hint", error->hint, sizeof error->hint);
    int64_t position = 0;
    if (json_member(object, "position", &value) &&
        chr_parse_i64(value, &position) == (int)value.len && position > 0 && position <= UINT32_MAX)
        error->position = (uint32_t)position;
    return true;
}

/* "… (at character 15)": takes it off the message. */
static void split_position(struct sql_error *error)
{
    static const char lead[] = " (at character ";
    char *at = strstr(error->message, lead);
    for (char *next = at; next; next = strstr(at + 1, lead))
        at = next;
    int64_t position = 0;
    chr_slice digits = chr_slice_cstr(at ? at + sizeof lead - 1 : NULL);
    int used = at ? chr_parse_i64(digits, &position) : 0;
    if (used > 0 && position > 0 && position <= UINT32_MAX &&
        chr_slice_eq(chr_slice_of(digits.ptr + used, digits.len - (size_t)used), CHR_LIT(")"))) {
        error->position = (uint32_t)position;
        *at = 0;
    }
}

bool cli_error_read(chr_slice bytes, struct sql_error *error)
{
    memset(error, 0, sizeof *error);
    chr_slice rest;
    if (read_json_error(bytes, error))
        return true;
    if (!line_after(bytes, "ERROR ", &rest) || rest.len < 7 || rest.ptr[5] != ':')
        return false;
    copy_text(chr_slice_of(rest.ptr, 5), error->sqlstate, sizeof error->sqlstate);
    copy_text(chr_slice_of(rest.ptr + 7, rest.len - 7), error->message, sizeof error->message);
    split_position(error);
    if (line_after(bytes, "DETAIL: ", &rest))
        copy_text(rest, error->detail, sizeof error->detail);
    if (line_after(bytes, "HINT: ", &rest))
        copy_text(rest, error->hint, sizeof error->hint);
    return true;
}

/* Like psql: the line of the statement, a caret under the character. */
static void point_at(struct chr_buf *out, chr_slice text, uint32_t position)
{
    size_t at = 0;
    for (uint32_t c = 1; at < text.len && c < position; c++)
        for (at++; at < text.len && (text.ptr[at] & 0xc0) == 0x80;)
            at++;
    size_t begin = at, end = at;
    unsigned line = 1;
    while (begin && text.ptr[begin - 1] != '\n')
        begin--;
    while (end < text.len && text.ptr[end] != '\n')
        end++;
    for (size_t i = 0; i < begin; i++)
        line += text.ptr[i] == '\n';
    char head[32];
    int head_len = snprintf(head, sizeof head, "LINE %u: ", line);
    chr_buf_add_cstr(out, head);
    size_t start = out->len;
    add_harmless(out, chr_slice_of(text.ptr + begin, at - begin));
    size_t width = width_of(chr_slice_of(out->ptr + start, out->len - start));
    add_harmless(out, chr_slice_of(text.ptr + at, end - at));
    chr_buf_addf(out, "\n%*s^\n", head_len + (int)CHR_MIN(width, (size_t)4096), "");
}

void cli_error_print(FILE *out, const struct sql_error *error, chr_slice context)
{
    struct chr_buf text;
    chr_buf_init(&text, BUF_BYTES_MAX);
    chr_buf_addf(&text, "ERROR %s: ", error->sqlstate);
    add_harmless(&text, chr_slice_cstr(error->message));
    if (!context.len && error->position)
        chr_buf_addf(&text, " (at character %u)", error->position);
    chr_buf_add_u8(&text, '\n');
    if (context.len && error->position)
        point_at(&text, context, error->position);
    if (context.len && error->detail[0]) {
        chr_buf_add_cstr(&text, "DETAIL: ");
        add_harmless(&text, chr_slice_cstr(error->detail));
        chr_buf_add_u8(&text, '\n');
    }
    if (context.len && error->hint[0]) {
        chr_buf_add_cstr(&text, "HINT: ");
        add_harmless(&text, chr_slice_cstr(error->hint));
        chr_buf_add_u8(&text, '\n');
    }
    (void)fwrite(text.ptr, 1, text.len, out);
    fflush(out);
    chr_buf_free(&text);
}
