/* sqlfront/parse.c: drives lexer and grammar over a whole text.
 *
 * One pass, one token of look-ahead of our own (NOT before LIKE, IN and BETWEEN binds like them).
 * The parser's stack is fixed in size, so nesting ends in 54001, not in a crash. */
#include <stdlib.h>

#include "base/utf8.h"
#include "sqlfront/ast.h"
#include "sqlfront/grammar.h"
#include "sqlfront/lexer.h"

void *sql__parserAlloc(void *(*alloc)(size_t));
void sql__parserFree(void *parser, void (*release)(void *));
void sql__parser(void *parser, int code, struct sql_token token, struct sql_parse *p);

uint32_t sql__char_position(chr_slice text, uint32_t offset)
{
    uint32_t position = 1;
    for (size_t i = 0; i < offset && i < text.len; i++)
        position += (text.ptr[i] & 0xc0) != 0x80;
    return position;
}

/* In byte order, for the search below. */
static const struct {
    const char *word;
    int code;
} keywords[] = {
    {"all", TK_ALL},
    {"alter", TK_ALTER},
    {"analyze", TK_ANALYZE},
    {"and", TK_AND},
    {"as", TK_AS},
    {"asc", TK_ASC},
    {"between", TK_BETWEEN},
    {"both", TK_BOTH},
    {"by", TK_BY},
    {"case", TK_CASE},
    {"cast", TK_CAST},
    {"check", TK_CHECK},
    {"client", TK_CLIENT},
    {"cluster", TK_CLUSTER},
    {"conflict", TK_CONFLICT},
    {"constraint", TK_CONSTRAINT},
    {"create", TK_CREATE},
    {"cross", TK_CROSS},
    {"default", TK_DEFAULT},
    {"delete", TK_DELETE},
    {"desc", TK_DESC},
    {"describe", TK_DESCRIBE},
    {"distinct", TK_DISTINCT},
    {"do", TK_DO},
    {"drop", TK_DROP},
    {"else", TK_ELSE},
    {"end", TK_END},
    {"escape", TK_ESCAPE},
    {"except", TK_EXCEPT},
    {"exists", TK_EXISTS},
    {"explain", TK_EXPLAIN},
    {"extract", TK_EXTRACT},
    {"false", TK_FALSE},
    {"filter", TK_FILTER},
    {"first", TK_FIRST},
    {"for", TK_FOR},
    {"foreign", TK_FOREIGN},
    {"format", TK_FORMAT},
    {"from", TK_FROM},
    {"full", TK_FULL},
    {"grant", TK_GRANT},
    {"group", TK_GROUP},
    {"having", TK_HAVING},
    {"if", TK_IF},
    {"ilike", TK_ILIKE},
    {"in", TK_IN},
    {"inner", TK_INNER},
    {"insert", TK_INSERT},
    {"intersect", TK_INTERSECT},
    {"into", TK_INTO},
    {"is", TK_IS},
    {"isnull", TK_ISNULL},
    {"join", TK_JOIN},
    {"key", TK_KEY},
    {"kill", TK_KILL},
    {"last", TK_LAST},
    {"leading", TK_LEADING},
    {"left", TK_LEFT},
    {"like", TK_LIKE},
    {"limit", TK_LIMIT},
    {"natural", TK_NATURAL},
    {"not", TK_NOT},
    {"nothing", TK_NOTHING},
    {"notnull", TK_NOTNULL},
    {"null", TK_NULL},
    {"nulls", TK_NULLS},
    {"offset", TK_OFFSET},
    {"on", TK_ON},
    {"or", TK_OR},
    {"order", TK_ORDER},
    {"outer", TK_OUTER},
    {"over", TK_OVER},
    {"precision", TK_PRECISION},
    {"primary", TK_PRIMARY},
    {"references", TK_REFERENCES},
    {"rejects", TK_REJECTS},
    {"retry", TK_RETRY},
    {"revoke", TK_REVOKE},
    {"right", TK_RIGHT},
    {"select", TK_SELECT},
    {"set", TK_SET},
    {"show", TK_SHOW},
    {"substring", TK_SUBSTRING},
    {"table", TK_TABLE},
    {"tables", TK_TABLES},
    {"then", TK_THEN},
    {"to", TK_TO},
    {"trailing", TK_TRAILING},
    {"trim", TK_TRIM},
    {"true", TK_TRUE},
    {"truncate", TK_TRUNCATE},
    {"union", TK_UNION},
    {"unique", TK_UNIQUE},
    {"unknown", TK_UNKNOWN},
    {"update", TK_UPDATE},
    {"values", TK_VALUES},
    {"when", TK_WHEN},
    {"where", TK_WHERE},
    {"with", TK_WITH},
};

int sql__keyword(chr_slice word)
{
    char lower[16];
    if (word.len >= sizeof lower)
        return 0;
    for (size_t i = 0; i < word.len; i++) {
        uint8_t c = word.ptr[i];
        lower[i] = (char)(c >= 'A' && c <= 'Z' ? c + 32 : c);
    }
    lower[word.len] = '\0';
    size_t low = 0, high = CHR_COUNT_OF(keywords);
    while (low < high) {
        size_t mid = (low + high) / 2;
        int c = strcmp(lower, keywords[mid].word);
        if (c == 0)
            return keywords[mid].code;
        if (c < 0)
            high = mid;
        else
            low = mid + 1;
    }
    return 0;
}

/* First words of statements that other databases have and this one does not, yet or ever. */
static bool is_foreign_statement(chr_slice word)
{
    static const char *const words[] = {
        "abort",     "alter",   "attach",   "begin",   "call",       "close",
        "cluster",   "comment", "commit",   "copy",    "deallocate", "declare",
        "discard",   "end",     "execute",  "fetch",   "import",     "listen",
        "load",      "lock",    "merge",    "move",    "notify",     "pragma",
        "prepare",   "reindex", "release",  "replace", "reset",      "rollback",
        "savepoint", "start",   "unlisten", "use",     "vacuum",     "with",
    };
    for (size_t i = 0; i < CHR_COUNT_OF(words); i++)
        if (chr_slice_eq(word, chr_slice_cstr(words[i])))
            return true;
    return false;
}

/* CREATE and DROP are for tables; say which other thing was meant. */
static bool is_foreign_object(chr_slice word)
{
    static const char *const words[] = {
        "aggregate", "database", "extension", "function", "index",    "materialized", "or",
        "role",      "rolling",  "schedule",  "schema",   "sequence", "stream",       "temp",
        "temporary", "trigger",  "type",      "unique",   "unlogged", "user",         "view",
    };
    for (size_t i = 0; i < CHR_COUNT_OF(words); i++)
        if (chr_slice_eq(word, chr_slice_cstr(words[i])))
            return true;
    return false;
}

static void object_feature(struct sql_parse *p, int verb, const struct sql_token *token)
{
    char object[16];
    size_t n = 0;
    for (; n < token->text.len && n < sizeof object - 1; n++)
        object[n] =
            (char)(token->text.ptr[n] >= 'a' ? token->text.ptr[n] - 32 : token->text.ptr[n]);
    object[n] = '\0';
    sql__parse_fail(p, "0A000", token->pos, "%s %s is not supported yet",
                    verb == TK_CREATE ? "CREATE" : "DROP", object);
}

static bool binds_like_not(int code)
{
    return code == TK_LIKE || code == TK_ILIKE || code == TK_IN || code == TK_BETWEEN;
}

/* ALTER is known in front of CLUSTER alone. */
static bool before_cluster(struct sql_lexer lexer)
{
    struct sql_token next;
    return sql__lex(&lexer, &next) == TK_CLUSTER;
}

static void feed(struct sql_parse *p, void *parser)
{
    struct sql_lexer lexer = {.parse = p, .cursor = p->text.ptr};
    struct sql_token token, next;
    bool starts = true; /* the token is the first of its statement */
    int previous = 0;
    int code = sql__lex(&lexer, &token);
    while (!p->failed) {
        if (code == SQL_TOKEN_ILLEGAL)
            return;
        if (starts && code != TK_SEMI && code != TK_DESC && is_foreign_statement(token.text) &&
            !(code == TK_ALTER && before_cluster(lexer)))
            sql__parse_feature(p, &token, NULL);
        if ((previous == TK_CREATE || previous == TK_DROP) && code != TK_TABLE &&
            is_foreign_object(token.text))
            object_feature(p, previous, &token);
        if (p->failed)
            return;
        int next_code = code == SQL_TOKEN_END ? SQL_TOKEN_END : sql__lex(&lexer, &next);
        previous = starts ? code : 0;
        starts = code == TK_SEMI;
        if (code == TK_NOT && binds_like_not(next_code))
            code = TK_NOT_LA;
        if (p->failed)
            return;
        sql__parser(parser, code, token, p);
        if (code == SQL_TOKEN_END)
            return;
        code = next_code;
        token = next;
    }
}

chr_err sql__parse(struct chr_arena *arena, chr_slice text, const struct sql_limits *limits,
                   struct sql_error *error, struct sql_stmt **stmts, uint32_t *count)
{
    struct sql_parse p = {.arena = arena, .text = text, .limits = limits, .error = error};
    *stmts = NULL;
    *count = 0;
    if (!chr_utf8_valid_mqtt(text)) {
        sql_error_set(error, "22021", 0, "statement is not valid UTF-8");
        return CHR_EMALFORMED;
    }
    void *parser = sql__parserAlloc(malloc);
    if (!parser) {
        sql_error_set(error, "53200", 0, "out of memory");
        return CHR_ENOMEM;
    }
    feed(&p, parser);
    sql__parserFree(parser, free);
    if (p.failed)
        return CHR_EMALFORMED;
    *stmts = p.first;
    *count = p.count;
    return CHR_OK;
}
