/* sqlfront/ast.h: what the grammar makes of a text, before any name has a meaning.
 *
 * Nodes live in the parse's arena and are never freed one by one. Lists are intrusive (`next`), so
 * that building one costs nothing per item. Positions are byte offsets into the text; they become
 * characters only when an error is reported. */
#ifndef CHR_SQLFRONT_AST_H
#define CHR_SQLFRONT_AST_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/slice.h"
#include "sqlfront/sql.h"

struct sql_token {
    chr_slice text; /* identifiers folded and strings unquoted, in the arena; else the source */
    uint32_t pos;   /* byte offset */
    uint32_t end;
};

enum sql_ast_kind {
    SQL_AST_NULL,
    SQL_AST_INT,    /* text: digits */
    SQL_AST_FLOAT,  /* text */
    SQL_AST_STRING, /* text */
    SQL_AST_BLOB,   /* text: hex digits of X'…' */
    SQL_AST_BOOL,   /* flag */
    SQL_AST_NAME,   /* [qualifier.]text */
    SQL_AST_STAR,   /* [qualifier.]* */
    SQL_AST_CALL,   /* text(args); flag: DISTINCT; star: (*) ; filter */
    SQL_AST_OP,     /* op over args */
    SQL_AST_CASE,   /* args: [operand] when then … [else]; flag: has operand; star: has else */
    SQL_AST_CAST,   /* args[0] AS text (a type name) */
    SQL_AST_DEFAULT,
};

enum sql_op {
    SQL_OP_ADD,
    SQL_OP_SUB,
    SQL_OP_MUL,
    SQL_OP_DIV,
    SQL_OP_MOD,
    SQL_OP_POW,
    SQL_OP_NEG,
    SQL_OP_CONCAT,
    SQL_OP_EQ, /* EQ .. GE in this order: the kernels index by it */
    SQL_OP_NE,
    SQL_OP_LT,
    SQL_OP_LE,
    SQL_OP_GT,
    SQL_OP_GE,
    SQL_OP_DISTINCT, /* IS DISTINCT FROM */
    SQL_OP_NOT_DISTINCT,
    SQL_OP_AND, /* two or more args */
    SQL_OP_OR,
    SQL_OP_NOT,
    SQL_OP_IS_NULL,
    SQL_OP_IS_NOT_NULL,
    SQL_OP_IS_TRUE, /* IS_TRUE .. IS_NOT_FALSE: of a BOOLEAN, never NULL */
    SQL_OP_IS_NOT_TRUE,
    SQL_OP_IS_FALSE,
    SQL_OP_IS_NOT_FALSE,
    SQL_OP_LIKE, /* args: text, pattern [, escape] */
    SQL_OP_ILIKE,
    SQL_OP_IN, /* args[0] IN (the rest) */
    SQL_OP_BETWEEN,
    SQL_OP_POSITION, /* a IN b, inside position() only */
};

struct sql_ast {
    uint8_t kind; /* enum sql_ast_kind */
    uint8_t op;   /* enum sql_op */
    bool flag, star, parens;
    uint16_t depth;
    uint32_t pos;
    uint32_t args_count;
    chr_slice text, qualifier;
    struct sql_ast *args, *args_last; /* list */
    struct sql_ast *filter;           /* CALL … FILTER (WHERE …) */
    struct sql_ast *next;             /* of the list this node is in */
};

struct sql_ast_list {
    struct sql_ast *first, *last;
    uint32_t count;
};

struct sql_item { /* of a select list, GROUP BY, ORDER BY or SET */
    struct sql_ast *expr;
    chr_slice name; /* alias; or the column that SET assigns; ptr NULL: none */
    uint32_t pos;
    bool descending, nulls_first, nulls_given;
    struct sql_item *next;
};
struct sql_item_list {
    struct sql_item *first, *last;
    uint32_t count;
};

struct sql_column_ast { /* of CREATE TABLE */
    chr_slice name, type;
    uint32_t pos, type_pos;
    bool not_null, primary_key;
    struct sql_column_ast *next;
};

struct sql_name { /* a name in a list */
    chr_slice text;
    uint32_t pos;
    struct sql_name *next;
};
struct sql_name_list {
    struct sql_name *first, *last;
    uint32_t count;
};

enum sql_option_value { SQL_VALUE_STRING, SQL_VALUE_NUMBER, SQL_VALUE_WORD };
struct sql_option { /* name = value [, value …] */
    chr_slice name;
    uint32_t pos, value_pos;
    enum sql_option_value kind;
    struct sql_name_list values;
    struct sql_option *next;
};

enum sql_grantee_word { SQL_GRANTEE_PLAIN, SQL_GRANTEE_USER, SQL_GRANTEE_ROLE };
struct sql_grantee {
    enum sql_grantee_word word; /* in front of the name */
    chr_slice name;
    uint32_t pos;
    struct sql_grantee *next;
};

struct sql_row_ast { /* one (…) of VALUES */
    struct sql_ast_list values;
    uint32_t pos;
    struct sql_row_ast *next;
};

enum sql_stmt_kind {
    SQL_STMT_SELECT,
    SQL_STMT_INSERT,
    SQL_STMT_UPDATE,
    SQL_STMT_DELETE,
    SQL_STMT_CREATE_TABLE,
    SQL_STMT_DROP_TABLE,
    SQL_STMT_TRUNCATE,
    SQL_STMT_SHOW_TABLES,
    SQL_STMT_GRANT, /* and REVOKE */
    SQL_STMT_SHOW,
    SQL_STMT_DESCRIBE,
    SQL_STMT_EXPLAIN,
    SQL_STMT_SET,
    SQL_STMT_RETRY_REJECTS,
    SQL_STMT_KILL_CLIENT,   /* name: its client id */
    SQL_STMT_ALTER_CLUSTER, /* table: what to do; name: a node, or NAME=HOST:PORT */
};

enum sql_conflict { SQL_CONFLICT_ERROR, SQL_CONFLICT_NOTHING, SQL_CONFLICT_UPDATE };

struct sql_stmt {
    enum sql_stmt_kind kind;
    uint32_t pos; /* of its first token */
    enum sql_format format;

    chr_slice table; /* ptr NULL: none */
    uint32_t table_pos;
    chr_slice alias;

    /* SELECT, UPDATE (items: SET), DELETE */
    bool distinct;
    struct sql_item_list items, group, order;
    struct sql_ast *where, *having, *limit, *offset;

    /* INSERT */
    struct sql_name_list columns;
    struct sql_row_ast *rows, *rows_last;
    uint32_t rows_count;
    enum sql_conflict conflict;
    struct sql_name_list conflict_columns;
    struct sql_item_list conflict_set;
    uint32_t conflict_pos;
    struct sql_stmt *select; /* INSERT … SELECT, EXPLAIN */

    /* CREATE TABLE, DROP TABLE */
    bool if_existence; /* IF [NOT] EXISTS */
    struct sql_column_ast *table_columns, *table_columns_last;
    struct sql_name_list primary_key;
    uint32_t primary_key_pos;
    struct sql_option *options, *options_last;

    /* GRANT, REVOKE: privileges (`name`: ALL when empty list) on tables to grantees */
    bool revoke;
    struct sql_name_list privileges; /* empty: ALL */
    struct sql_name_list tables;
    struct sql_grantee *grantees, *grantees_last;

    bool analyze;   /* EXPLAIN ANALYZE */
    chr_slice name; /* SET, SHOW */
    uint32_t name_pos;
    struct sql_option *value; /* SET */

    struct sql_stmt *next;
};

/* The parser's state: what grammar.y sees as `p`. */
struct sql_parse {
    struct chr_arena *arena;
    chr_slice text; /* whole, zero-terminated after len */
    const struct sql_limits *limits;
    struct sql_error *error;
    bool failed; /* error is set; nothing more is fed */
    struct sql_stmt *first, *last;
    uint32_t count;
    /* What the builders hand out when the arena is at its limit: the error is set, nothing more is
     * fed, but the action at hand still writes somewhere. */
    struct sql_ast spare_ast;
    struct sql_item spare_item;
    struct sql_stmt spare_stmt;
    struct sql_option spare_option;
    struct sql_column_ast spare_column;
    struct sql_grantee spare_grantee;
};

/* Parses a whole text. text.ptr[text.len] must be readable and 0. On failure (CHR_EMALFORMED, or
 * CHR_EFULL for limits) *error is set. */
CHR_MUST_USE chr_err sql__parse(struct chr_arena *arena, chr_slice text,
                                const struct sql_limits *limits, struct sql_error *error,
                                struct sql_stmt **stmts, uint32_t *count);

/* 1-based character position of a byte offset. */
uint32_t sql__char_position(chr_slice text, uint32_t offset);

/* -- For grammar.y (ast.c). All set p->error and return something harmless when they fail. -----*/
void sql__parse_fail(struct sql_parse *p, const char *sqlstate, uint32_t pos, const char *format,
                     ...) CHR_PRINTF(4, 5);
void sql__parse_feature(struct sql_parse *p, const struct sql_token *token, const char *what);
void sql__parse_syntax(struct sql_parse *p, int code, const struct sql_token *token);
void sql__parse_overflow(struct sql_parse *p);
struct sql_ast *sql__ast_leaf(struct sql_parse *p, enum sql_ast_kind kind,
                              const struct sql_token *token);
struct sql_ast *sql__ast_op(struct sql_parse *p, enum sql_op op, uint32_t pos, struct sql_ast *a,
                            struct sql_ast *b, struct sql_ast *c);
/* AND, OR: a chain is one node. */
struct sql_ast *sql__ast_chain(struct sql_parse *p, enum sql_op op, uint32_t pos, struct sql_ast *a,
                               struct sql_ast *b);
struct sql_ast *sql__ast_negate(struct sql_parse *p, uint32_t pos, struct sql_ast *a);
struct sql_ast *sql__ast_args(struct sql_parse *p, enum sql_ast_kind kind, uint32_t pos,
                              struct sql_ast_list args);
struct sql_ast *sql__ast_call(struct sql_parse *p, const struct sql_token *name,
                              struct sql_ast_list args);
struct sql_ast *sql__ast_cast(struct sql_parse *p, uint32_t pos, struct sql_ast *a,
                              const struct sql_token *type);
struct sql_ast *sql__ast_typed(struct sql_parse *p, const struct sql_token *type,
                               const struct sql_token *literal);
void sql__list_add(struct sql_parse *p, struct sql_ast_list *list, struct sql_ast *node);
void sql__list_prepend(struct sql_parse *p, struct sql_ast_list *list, struct sql_ast *node);
struct sql_item *sql__item(struct sql_parse *p, struct sql_ast *expr, const struct sql_token *name);
void sql__item_add(struct sql_parse *p, struct sql_item_list *list, struct sql_item *item);
void sql__name_add(struct sql_parse *p, struct sql_name_list *list, const struct sql_token *name);
struct sql_option *sql__option(struct sql_parse *p, const struct sql_token *name,
                               enum sql_option_value kind, const struct sql_token *value);
struct sql_stmt *sql__stmt(struct sql_parse *p, enum sql_stmt_kind kind);
void sql__stmt_add(struct sql_parse *p, struct sql_stmt *stmt);
/* word: USER, ROLE or GROUP in front of the name; NULL: none. */
struct sql_grantee *sql__grantee(struct sql_parse *p, const struct sql_token *word,
                                 const struct sql_token *name);
void sql__grantee_add(struct sql_stmt *stmt, struct sql_grantee *grantee);
/* A word that is none of the grammar's has to be this one. */
void sql__word(struct sql_parse *p, const struct sql_token *token, const char *wanted);
void sql__row_add(struct sql_parse *p, struct sql_stmt *stmt, uint32_t pos,
                  struct sql_ast_list values);
void sql__column_add(struct sql_parse *p, struct sql_stmt *stmt, struct sql_column_ast *column);
void sql__option_add(struct sql_stmt *stmt, struct sql_option *option);
struct sql_column_ast *sql__column(struct sql_parse *p, const struct sql_token *name,
                                   const struct sql_token *type);
void sql__stmt_format(struct sql_parse *p, struct sql_stmt *stmt, const struct sql_token *name);

#endif
