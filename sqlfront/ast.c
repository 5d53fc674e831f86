/* sqlfront/ast.c: what the grammar's actions call to build nodes. */
#include "sqlfront/ast.h"

#include <stdarg.h>
#include <stdio.h>

void sql__parse_fail(struct sql_parse *p, const char *sqlstate, uint32_t pos, const char *format,
                     ...)
{
    if (p->failed) /* the first error is the one to tell */
        return;
    p->failed = true;
    char message[sizeof p->error->message];
    va_list args;
    va_start(args, format);
    if (vsnprintf(message, sizeof message, format, args) < 0)
        message[0] = '\0';
    va_end(args);
    sql_error_set(p->error, sqlstate, sql__char_position(p->text, pos), "%s", message);
}

void sql__parse_feature(struct sql_parse *p, const struct sql_token *token, const char *what)
{
    if (what) {
        sql__parse_fail(p, "0A000", token->pos, "%s is not supported yet", what);
        return;
    }
    char word[32];
    size_t n = CHR_MIN(token->text.len, sizeof word - 1);
    for (size_t i = 0; i < n; i++) {
        uint8_t c = token->text.ptr[i];
        word[i] = (char)(c >= 'a' && c <= 'z' ? c - 32 : c);
    }
    word[n] = '\0';
    sql__parse_fail(p, "0A000", token->pos, "%s is not supported yet", word);
}

void sql__parse_syntax(struct sql_parse *p, int code, const struct sql_token *token)
{
    if (code == 0) {
        sql__parse_fail(p, "42601", token->pos, "syntax error at end of input");
        return;
    }
    size_t len = token->end - token->pos;
    bool cut = len > 60;
    if (cut)
        for (len = 60; len > 0 && (p->text.ptr[token->pos + len] & 0xc0) == 0x80;)
            len--;
    sql__parse_fail(p, "42601", token->pos, "syntax error at or near \"%.*s%s\"", (int)len,
                    (const char *)p->text.ptr + token->pos, cut ? "…" : "");
}

void sql__parse_overflow(struct sql_parse *p)
{
    sql__parse_fail(p, "54001", 0, "statement is nested too deeply");
}

static void no_memory(struct sql_parse *p)
{
    sql__parse_fail(p, "53200", 0, "statement needs more memory than its limit");
}

static struct sql_ast *node(struct sql_parse *p, enum sql_ast_kind kind, uint32_t pos)
{
    struct sql_ast *n = CHR_ARENA_NEW(p->arena, struct sql_ast);
    if (!n) {
        no_memory(p);
        n = &p->spare_ast;
        memset(n, 0, sizeof *n);
    }
    n->kind = (uint8_t)kind;
    n->pos = pos;
    n->depth = 1;
    return n;
}

static void adopt(struct sql_parse *p, struct sql_ast *parent, struct sql_ast *arg)
{
    if (parent == arg) /* both the spare one */
        return;
    if (parent->args_last)
        parent->args_last->next = arg;
    else
        parent->args = arg;
    parent->args_last = arg;
    arg->next = NULL;
    parent->args_count++;
    if (arg->depth + 1 > parent->depth)
        parent->depth = (uint16_t)(arg->depth + 1);
    if (parent->depth > p->limits->expression_depth)
        sql__parse_fail(p, "54001", parent->pos, "expression is nested deeper than %u levels",
                        (unsigned)p->limits->expression_depth);
}

struct sql_ast *sql__ast_leaf(struct sql_parse *p, enum sql_ast_kind kind,
                              const struct sql_token *token)
{
    struct sql_ast *n = node(p, kind, token->pos);
    n->text = token->text;
    return n;
}

struct sql_ast *sql__ast_op(struct sql_parse *p, enum sql_op op, uint32_t pos, struct sql_ast *a,
                            struct sql_ast *b, struct sql_ast *c)
{
    /* -9223372036854775808 is one literal: its digits alone do not fit. */
    if (op == SQL_OP_NEG && (a->kind == SQL_AST_INT || a->kind == SQL_AST_FLOAT) && !a->parens &&
        a->text.ptr[0] != '-') {
        uint8_t *text = chr_arena_alloc(p->arena, a->text.len + 1);
        if (text) {
            text[0] = '-';
            memcpy(text + 1, a->text.ptr, a->text.len);
            a->text = chr_slice_of(text, a->text.len + 1);
            a->pos = pos;
            return a;
        }
        no_memory(p);
    }
    struct sql_ast *n = node(p, SQL_AST_OP, pos);
    n->op = (uint8_t)op;
    adopt(p, n, a);
    if (b)
        adopt(p, n, b);
    if (c)
        adopt(p, n, c);
    return n;
}

struct sql_ast *sql__ast_chain(struct sql_parse *p, enum sql_op op, uint32_t pos, struct sql_ast *a,
                               struct sql_ast *b)
{
    if (a->kind == SQL_AST_OP && a->op == op && !a->parens) {
        adopt(p, a, b);
        if (a->args_count > p->limits->list_items)
            sql__parse_fail(p, "54000", pos, "more than %u terms in a condition",
                            (unsigned)p->limits->list_items);
        return a;
    }
    return sql__ast_op(p, op, pos, a, b, NULL);
}

struct sql_ast *sql__ast_negate(struct sql_parse *p, uint32_t pos, struct sql_ast *a)
{
    return sql__ast_op(p, SQL_OP_NOT, pos, a, NULL, NULL);
}

struct sql_ast *sql__ast_args(struct sql_parse *p, enum sql_ast_kind kind, uint32_t pos,
                              struct sql_ast_list args)
{
    struct sql_ast *n = node(p, kind, pos);
    struct sql_ast *next;
    for (struct sql_ast *a = args.first; a; a = next) {
        next = a->next;
        adopt(p, n, a);
    }
    return n;
}

struct sql_ast *sql__ast_call(struct sql_parse *p, const struct sql_token *name,
                              struct sql_ast_list args)
{
    chr_slice text = name->text;
    if (chr_slice_eq(text, CHR_LIT("position")) && args.count == 1 &&
        args.first->kind == SQL_AST_OP && args.first->op == SQL_OP_POSITION) {
        /* position(part IN whole) is strpos(whole, part) */
        struct sql_ast *part = args.first->args, *whole = part->next;
        struct sql_ast_list swapped = {0};
        if (whole) {
            part->next = NULL;
            sql__list_add(p, &swapped, whole);
            sql__list_add(p, &swapped, part);
            args = swapped;
            text = CHR_LIT("strpos");
        }
    }
    struct sql_ast *n = sql__ast_args(p, SQL_AST_CALL, name->pos, args);
    n->text = text;
    return n;
}

struct sql_ast *sql__ast_cast(struct sql_parse *p, uint32_t pos, struct sql_ast *a,
                              const struct sql_token *type)
{
    struct sql_ast *n = node(p, SQL_AST_CAST, pos);
    adopt(p, n, a);
    n->text = type->text;
    return n;
}

/* TIMESTAMP '2024-12-10', INTERVAL '5 minutes': a cast of the literal. */
struct sql_ast *sql__ast_typed(struct sql_parse *p, const struct sql_token *type,
                               const struct sql_token *literal)
{
    struct sql_ast *n =
        sql__ast_cast(p, type->pos, sql__ast_leaf(p, SQL_AST_STRING, literal), type);
    n->flag = true;
    return n;
}

void sql__list_add(struct sql_parse *p, struct sql_ast_list *list, struct sql_ast *a)
{
    a->next = NULL;
    if (list->last == a) /* the spare node */
        return;
    if (list->last)
        list->last->next = a;
    else
        list->first = a;
    list->last = a;
    if (++list->count > p->limits->list_items)
        sql__parse_fail(p, "54000", a->pos, "more than %u items in a list",
                        (unsigned)p->limits->list_items);
}

void sql__list_prepend(struct sql_parse *p, struct sql_ast_list *list, struct sql_ast *a)
{
    if (p->failed)
        return;
    a->next = list->first;
    list->first = a;
    if (!list->last)
        list->last = a;
    list->count++;
}

struct sql_item *sql__item(struct sql_parse *p, struct sql_ast *expr, const struct sql_token *name)
{
    struct sql_item *item = CHR_ARENA_NEW(p->arena, struct sql_item);
    if (!item) {
        no_memory(p);
        item = &p->spare_item;
        memset(item, 0, sizeof *item);
    }
    item->expr = expr;
    item->pos = expr->pos;
    if (name)
        item->name = name->text;
    return item;
}

void sql__item_add(struct sql_parse *p, struct sql_item_list *list, struct sql_item *item)
{
    if (list->last == item)
        return;
    if (list->last)
        list->last->next = item;
    else
        list->first = item;
    list->last = item;
    if (++list->count > p->limits->list_items)
        sql__parse_fail(p, "54000", item->pos, "more than %u items in a list",
                        (unsigned)p->limits->list_items);
}

void sql__name_add(struct sql_parse *p, struct sql_name_list *list, const struct sql_token *name)
{
    struct sql_name *n = CHR_ARENA_NEW(p->arena, struct sql_name);
    if (!n) {
        no_memory(p);
        return;
    }
    n->text = name->text;
    n->pos = name->pos;
    if (list->last)
        list->last->next = n;
    else
        list->first = n;
    list->last = n;
    list->count++;
}

struct sql_option *sql__option(struct sql_parse *p, const struct sql_token *name,
                               enum sql_option_value kind, const struct sql_token *value)
{
    struct sql_option *o = CHR_ARENA_NEW(p->arena, struct sql_option);
    if (!o) {
        no_memory(p);
        o = &p->spare_option;
        memset(o, 0, sizeof *o);
    }
    o->name = name->text;
    o->pos = name->pos;
    o->value_pos = value->pos;
    o->kind = kind;
    sql__name_add(p, &o->values, value);
    return o;
}

struct sql_stmt *sql__stmt(struct sql_parse *p, enum sql_stmt_kind kind)
{
    struct sql_stmt *s = CHR_ARENA_NEW(p->arena, struct sql_stmt);
    if (!s) {
        no_memory(p);
        s = &p->spare_stmt;
        memset(s, 0, sizeof *s);
    }
    s->kind = kind;
    return s;
}

void sql__stmt_add(struct sql_parse *p, struct sql_stmt *stmt)
{
    if (p->failed)
        return;
    if (p->last)
        p->last->next = stmt;
    else
        p->first = stmt;
    p->last = stmt;
    p->count++;
}

void sql__row_add(struct sql_parse *p, struct sql_stmt *stmt, uint32_t pos,
                  struct sql_ast_list values)
{
    struct sql_row_ast *row = CHR_ARENA_NEW(p->arena, struct sql_row_ast);
    if (!row) {
        no_memory(p);
        return;
    }
    row->pos = pos;
    row->values = values;
    if (stmt->rows_last)
        stmt->rows_last->next = row;
    else
        stmt->rows = row;
    stmt->rows_last = row;
    stmt->rows_count++;
}

void sql__column_add(struct sql_parse *p, struct sql_stmt *stmt, struct sql_column_ast *column)
{
    if (p->failed)
        return;
    if (stmt->table_columns_last)
        stmt->table_columns_last->next = column;
    else
        stmt->table_columns = column;
    stmt->table_columns_last = column;
}

struct sql_column_ast *sql__column(struct sql_parse *p, const struct sql_token *name,
                                   const struct sql_token *type)
{
    struct sql_column_ast *c = CHR_ARENA_NEW(p->arena, struct sql_column_ast);
    if (!c) {
        no_memory(p);
        c = &p->spare_column;
        memset(c, 0, sizeof *c);
    }
    c->name = name->text;
    c->pos = name->pos;
    c->type = type->text;
    c->type_pos = type->pos;
    return c;
}

void sql__word(struct sql_parse *p, const struct sql_token *token, const char *wanted)
{
    if (!chr_slice_eq(token->text, chr_slice_cstr(wanted)))
        sql__parse_fail(p, "42601", token->pos, "syntax error at or near \"%.*s\"",
                        CHR_SLICE_ARGS(token->text));
}

struct sql_grantee *sql__grantee(struct sql_parse *p, const struct sql_token *word,
                                 const struct sql_token *name)
{
    struct sql_grantee *g = CHR_ARENA_NEW(p->arena, struct sql_grantee);
    if (!g) {
        no_memory(p);
        g = &p->spare_grantee;
        memset(g, 0, sizeof *g);
    }
    g->name = name->text;
    g->pos = name->pos;
    if (word && chr_slice_eq(word->text, CHR_LIT("user")))
        g->word = SQL_GRANTEE_USER;
    else if (word && chr_slice_eq(word->text, CHR_LIT("group")))
        g->word = SQL_GRANTEE_ROLE;
    else if (word) {
        g->word = SQL_GRANTEE_ROLE;
        sql__word(p, word, "role");
    }
    return g;
}

void sql__grantee_add(struct sql_stmt *stmt, struct sql_grantee *grantee)
{
    if (stmt->grantees_last)
        stmt->grantees_last->next = grantee;
    else
        stmt->grantees = grantee;
    stmt->grantees_last = grantee;
}

void sql__stmt_format(struct sql_parse *p, struct sql_stmt *stmt, const struct sql_token *name)
{
    if (!sql_format_parse(name->text, &stmt->format))
        sql__parse_fail(p, "22023", name->pos,
                        "unknown format \"%.*s\": json, csv, ndjson or table",
                        CHR_SLICE_ARGS(name->text));
}
