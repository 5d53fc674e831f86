/* sqlfront/lexer.re: text to tokens. Source for re2c.
 *
 * The text is valid UTF-8 without U+0000 (checked before) and ends with a 0 byte, which is the
 * sentinel: no rule can run past it. Quoted things and comments are read by plain loops, because
 * they need counting or copying anyway. */
#include "sqlfront/lexer.h"

#include <string.h>

#include "sqlfront/grammar.h"

static int illegal(struct sql_lexer *lx, const uint8_t *start, const char *sqlstate, const char *what)
{
    sql__parse_fail(lx->parse, sqlstate, (uint32_t)(start - lx->parse->text.ptr), "%s", what);
    return SQL_TOKEN_ILLEGAL;
}

/* From the character after the opening quote; a doubled quote stands for itself. NULL: unclosed. */
static const uint8_t *quoted(struct sql_lexer *lx, const uint8_t *p, uint8_t quote, chr_slice *out)
{
    const uint8_t *start = p;
    size_t doubled = 0;
    for (;; p++) {
        if (*p == 0 && p >= lx->parse->text.ptr + lx->parse->text.len)
            return NULL;
        if (*p == quote) {
            if (p[1] != quote)
                break;
            doubled++;
            p++;
        }
    }
    size_t len = (size_t)(p - start);
    if (!doubled) {
        *out = chr_slice_of(start, len); /* the text itself lives in the arena */
        return p + 1;
    }
    uint8_t *copy = chr_arena_alloc(lx->parse->arena, len ? len : 1);
    if (!copy)
        return NULL;
    size_t n = 0;
    for (const uint8_t *q = start; q < p; q++) {
        copy[n++] = *q;
        if (*q == quote)
            q++;
    }
    *out = chr_slice_of(copy, n);
    return p + 1;
}

static int hex(uint8_t c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

static size_t utf8_put(uint8_t *out, uint32_t c)
{
    if (c < 0x80) {
        out[0] = (uint8_t)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (uint8_t)(0xc0 | c >> 6);
        out[1] = (uint8_t)(0x80 | (c & 63));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (uint8_t)(0xe0 | c >> 12);
        out[1] = (uint8_t)(0x80 | (c >> 6 & 63));
        out[2] = (uint8_t)(0x80 | (c & 63));
        return 3;
    }
    out[0] = (uint8_t)(0xf0 | c >> 18);
    out[1] = (uint8_t)(0x80 | (c >> 12 & 63));
    out[2] = (uint8_t)(0x80 | (c >> 6 & 63));
    out[3] = (uint8_t)(0x80 | (c & 63));
    return 4;
}

/* E'…': \n \t \r \b \f \\ \' \uXXXX \UXXXXXXXX. NULL with *bad set: a bad escape; else unclosed. */
static const uint8_t *escaped(struct sql_lexer *lx, const uint8_t *p, chr_slice *out, bool *bad)
{
    const uint8_t *text_end = lx->parse->text.ptr + lx->parse->text.len;
    const uint8_t *q = p;
    while (q < text_end && *q != '\'') {
        if (*q == '\\')
            q++;
        else if (q[0] == '\'' && q[1] == '\'')
            q++;
        q++;
    }
    uint8_t *copy = chr_arena_alloc(lx->parse->arena, (size_t)(text_end - p) + 1);
    if (!copy)
        return NULL;
    size_t n = 0;
    *bad = false;
    for (; p < text_end; p++) {
        if (*p == '\'') {
            if (p[1] != '\'') {
                *out = chr_slice_of(copy, n);
                return p + 1;
            }
            p++;
            copy[n++] = '\'';
            continue;
        }
        if (*p != '\\') {
            copy[n++] = *p;
            continue;
        }
        p++;
        int digits = 0;
        switch (*p) {
        case 'n': copy[n++] = '\n'; break;
        case 't': copy[n++] = '\t'; break;
        case 'r': copy[n++] = '\r'; break;
        case 'b': copy[n++] = '\b'; break;
        case 'f': copy[n++] = '\f'; break;
        case 'u': digits = 4; break;
        case 'U': digits = 8; break;
        case 0: return NULL;
        default: copy[n++] = *p;
        }
        if (digits) {
            uint32_t c = 0;
            for (int i = 0; i < digits; i++) {
                int h = hex(p[1]);
                if (h < 0 || c > 0x10ffff) {
                    *bad = true;
                    return NULL;
                }
                c = c << 4 | (uint32_t)h;
                p++;
            }
            if (c == 0 || c > 0x10ffff || (c >= 0xd800 && c < 0xe000)) {
                *bad = true;
                return NULL;
            }
            n += utf8_put(copy + n, c); /* at most 4 bytes for 6 or 10 of source */
        }
    }
    return NULL;
}

int sql__lex(struct sql_lexer *lx, struct sql_token *tok)
{
    const uint8_t *p = lx->cursor, *start, *marker;
    const uint8_t *base = lx->parse->text.ptr;
    int code;
    (void)marker;
again:
    start = p;
#define TOKEN(c)                                                                                   \
    do {                                                                                           \
        code = (c);                                                                                \
        goto done;                                                                                 \
    } while (0)
    /*!re2c
    re2c:define:YYCTYPE = "unsigned char";
    re2c:define:YYCURSOR = p;
    re2c:define:YYMARKER = marker;
    re2c:yyfill:enable = 0;

    digits = [0-9]+;
    exponent = [eE] [+-]? digits;
    letter = [A-Za-z_\x80-\xff];
    word = letter [A-Za-z0-9_$\x80-\xff]*;

    "\x00"                { p = start; tok->text = chr_slice_of(start, 0); tok->pos = tok->end = (uint32_t)(start - base);
                            lx->cursor = start; return SQL_TOKEN_END; }
    [ \t\r\n\f\v]+        { goto again; }
    "--" [^\n\x00]*       { goto again; }
    "/*"                  { goto comment; }

    digits                { TOKEN(TK_INTEGER); }
    digits exponent | digits "." digits? exponent? | "." digits exponent?
                          { TOKEN(TK_FLOATNUM); }
    digits word           { TOKEN(TK_DURATION); }
    [eE] "'"              { goto estring; }
    [xX] "'"              { goto xstring; }
    "'"                   { goto string; }
    "\""                  { goto quoted_name; }
    word                  { goto word; }

    "+"                   { TOKEN(TK_PLUS); }
    "-"                   { TOKEN(TK_MINUS); }
    "*"                   { TOKEN(TK_STAR); }
    "/"                   { TOKEN(TK_SLASH); }
    "%"                   { TOKEN(TK_PERCENT); }
    "^"                   { TOKEN(TK_CARET); }
    "||"                  { TOKEN(TK_CONCAT); }
    "::"                  { TOKEN(TK_TYPECAST); }
    "="                   { TOKEN(TK_EQ); }
    "<>" | "!="           { TOKEN(TK_NE); }
    "<"                   { TOKEN(TK_LT); }
    "<="                  { TOKEN(TK_LE); }
    ">"                   { TOKEN(TK_GT); }
    ">="                  { TOKEN(TK_GE); }
    "("                   { TOKEN(TK_LP); }
    ")"                   { TOKEN(TK_RP); }
    ","                   { TOKEN(TK_COMMA); }
    ";"                   { TOKEN(TK_SEMI); }
    "."                   { TOKEN(TK_DOT); }
    *                     { goto unknown; }
    */

comment: {
    int depth = 1; /* comments nest, as in PostgreSQL */
    while (depth > 0) {
        if (*p == 0)
            return illegal(lx, start, "42601", "unterminated /* comment");
        if (p[0] == '/' && p[1] == '*') {
            depth++;
            p += 2;
        } else if (p[0] == '*' && p[1] == '/') {
            depth--;
            p += 2;
        } else {
            p++;
        }
    }
    goto again;
}

string:
    p = quoted(lx, p, '\'', &tok->text);
    if (!p)
        return illegal(lx, start, "42601", "unterminated quoted string");
    code = TK_STRING;
    goto done_text;

estring: {
    bool bad = false;
    p = escaped(lx, p, &tok->text, &bad);
    if (!p)
        return illegal(lx, start, bad ? "22025" : "42601",
                       bad ? "invalid Unicode escape" : "unterminated quoted string");
    code = TK_STRING;
    goto done_text;
}

xstring:
    p = quoted(lx, p, '\'', &tok->text);
    if (!p)
        return illegal(lx, start, "42601", "unterminated hexadecimal string");
    for (size_t i = 0; i < tok->text.len; i++)
        if (hex(tok->text.ptr[i]) < 0)
            return illegal(lx, start, "22P02", "X'…' takes hexadecimal digits");
    if (tok->text.len % 2)
        return illegal(lx, start, "22P02", "X'…' takes an even number of hexadecimal digits");
    code = TK_XSTRING;
    goto done_text;

quoted_name:
    p = quoted(lx, p, '"', &tok->text);
    if (!p)
        return illegal(lx, start, "42601", "unterminated quoted identifier");
    if (tok->text.len == 0)
        return illegal(lx, start, "42601", "zero-length delimited identifier");
    code = TK_ID;
    goto done_text;

word: {
    chr_slice word = chr_slice_of(start, (size_t)(p - start));
    code = sql__keyword(word);
    bool upper = false;
    for (size_t i = 0; i < word.len; i++)
        upper |= word.ptr[i] >= 'A' && word.ptr[i] <= 'Z';
    if (upper) {
        uint8_t *folded = chr_arena_alloc(lx->parse->arena, word.len);
        if (!folded)
            return illegal(lx, start, "53200", "out of memory");
        for (size_t i = 0; i < word.len; i++)
            folded[i] = word.ptr[i] >= 'A' && word.ptr[i] <= 'Z' ? (uint8_t)(word.ptr[i] + 32)
                                                                  : word.ptr[i];
        word.ptr = folded;
    }
    tok->text = word;
    if (!code)
        code = TK_ID;
    goto done_text;
}

unknown: {
    size_t len = 1;
    while ((start[len] & 0xc0) == 0x80)
        len++;
    sql__parse_fail(lx->parse, "42601", (uint32_t)(start - base), "syntax error at or near \"%.*s\"",
                    (int)len, (const char *)start);
    return SQL_TOKEN_ILLEGAL;
}

done:
    tok->text = chr_slice_of(start, (size_t)(p - start));
done_text:
    tok->pos = (uint32_t)(start - base);
    tok->end = (uint32_t)(p - base);
    lx->cursor = p;
    return code;
}
