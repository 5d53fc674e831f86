/* sqlfront/grammar.y: SQL as this node speaks it. Source for lemon.
 *
 * Actions only build nodes (ast.c); what the names mean is the binder's. Statements that a later
 * step will bring (joins, subqueries, windows, set operations) are recognised far enough to say so,
 * with their place, instead of a bare syntax error. The stack is fixed: nesting cannot run away. */
%name sql__parser
%token_prefix TK_
%token_type {struct sql_token}
%extra_argument {struct sql_parse *p}
%stack_size 3000
%stack_overflow { sql__parse_overflow(p); }
%syntax_error { sql__parse_syntax(p, yymajor, &TOKEN); }

%include {
#include <string.h>

#include "sqlfront/ast.h"

#define NDEBUG 1

static struct sql_ast *not_if(struct sql_parse *p, bool negate, uint32_t pos, struct sql_ast *e)
{
    return negate ? sql__ast_negate(p, pos, e) : e;
}
static const struct sql_ast_list no_list = {0};
static struct sql_ast_list list_of(struct sql_parse *p, struct sql_ast *a, struct sql_ast *b,
                                   struct sql_ast *c)
{
    struct sql_ast_list l = {0};
    sql__list_add(p, &l, a);
    if (b)
        sql__list_add(p, &l, b);
    if (c)
        sql__list_add(p, &l, c);
    return l;
}
static struct sql_ast *call_named(struct sql_parse *p, const struct sql_token *at, const char *name,
                                  struct sql_ast_list args)
{
    struct sql_token t = *at;
    t.text = chr_slice_cstr(name);
    return sql__ast_call(p, &t, args);
}
}

/* Words that are names wherever they are not wanted as words. Those that may follow an alias (FROM t
 * FORMAT csv, UPDATE t SET …, FROM t LEFT JOIN …) cannot simply fall back: they are names only where
 * the grammar says nm. */
%fallback ID
  ALL ALTER ANALYZE BOTH BY CLIENT CLUSTER CONFLICT DESCRIBE DO ESCAPE EXISTS EXPLAIN EXTRACT FILTER FIRST GRANT IF KEY KILL LAST LEADING
  NOTHING NULLS OUTER OVER PRECISION REJECTS REPLACE RETRY REVOKE SHOW SUBSTRING TABLES TO TRAILING TRIM
  TRUNCATE UNKNOWN UPDATE VALUES DELETE INSERT DROP.
%token_class nm ID|CROSS|FORMAT|FULL|INNER|LEFT|NATURAL|RIGHT|SET|EXCEPT|INTERSECT.

%left OR.
%left AND.
%right NOT.
%nonassoc IS ISNULL NOTNULL.
%nonassoc EQ NE LT LE GT GE.
%nonassoc BETWEEN IN LIKE ILIKE NOT_LA.
%nonassoc ESCAPE.
%left CONCAT.
%left PLUS MINUS.
%left STAR SLASH PERCENT.
%left CARET.
%right UMINUS.
%left TYPECAST.

%type cmd {struct sql_stmt *}
%type select {struct sql_stmt *}
%type expr {struct sql_ast *}
%type call {struct sql_ast *}
%type name {struct sql_ast *}
%type inarg {struct sql_ast *}
%type filter {struct sql_ast *}
%type exprs {struct sql_ast_list}
%type exprs_opt {struct sql_ast_list}
%type whens {struct sql_ast_list}
%type items {struct sql_item_list}
%type item {struct sql_item *}
%type where {struct sql_ast *}
%type group {struct sql_item_list}
%type having {struct sql_ast *}
%type order {struct sql_item_list}
%type orders {struct sql_item_list}
%type order_item {struct sql_item *}
%type sets {struct sql_item_list}
%type set_item {struct sql_item *}
%type names {struct sql_name_list}
%type names_opt {struct sql_name_list}
%type direction {bool}
%type values {struct sql_stmt *}
%type table_def {struct sql_stmt *}
%type column {struct sql_column_ast *}
%type option {struct sql_option *}
%type option_values {struct sql_option *}
%type option_value {struct sql_option *}
%type set_value {struct sql_option *}
%type if_exists {bool}
%type if_not_exists {bool}
%type typename {struct sql_token}
%type alias {struct sql_token}
%type any {struct sql_token}

input ::= cmds.
cmds ::= cmd_opt.
cmds ::= cmds SEMI cmd_opt.
cmd_opt ::= .
cmd_opt ::= cmd(C). { sql__stmt_add(p, C); }
cmd_opt ::= cmd(C) FORMAT format_name(F). { sql__stmt_format(p, C, &F); sql__stmt_add(p, C); }

%type format_name {struct sql_token}
format_name(A) ::= nm(T). { A = T; }
format_name(A) ::= TABLE(T). { A = T; }

/* -- SELECT ------------------------------------------------------------------------------------ */
cmd(A) ::= select(S). { A = S; }

select(A) ::= SELECT(T) distinct_opt(D) items(I) from(F) where(W) group(G) having(H) order(O) limit(L). {
    A = sql__stmt(p, SQL_STMT_SELECT);
    A->pos = T.pos;
    A->distinct = D;
    A->items = I;
    A->table = F.table.text;
    A->table_pos = F.table.pos;
    A->alias = F.alias.text;
    A->where = W;
    A->group = G;
    A->having = H;
    A->order = O;
    A->limit = L.limit;
    A->offset = L.offset;
}
select(A) ::= select(B) set_op(T). { A = B; sql__parse_feature(p, &T, NULL); }
%type set_op {struct sql_token}
set_op(A) ::= UNION(T). { A = T; }
set_op(A) ::= INTERSECT(T). { A = T; }
set_op(A) ::= EXCEPT(T). { A = T; }

%type distinct_opt {bool}
distinct_opt(A) ::= . { A = false; }
distinct_opt(A) ::= ALL. { A = false; }
distinct_opt(A) ::= DISTINCT. { A = true; }
distinct_opt(A) ::= DISTINCT ON(T). { A = true; sql__parse_feature(p, &T, "DISTINCT ON"); }

items(A) ::= item(I). { memset(&A, 0, sizeof A); sql__item_add(p, &A, I); }
items(A) ::= items(L) COMMA item(I). { A = L; sql__item_add(p, &A, I); }
item(A) ::= STAR(T). { A = sql__item(p, sql__ast_leaf(p, SQL_AST_STAR, &T), NULL); }
item(A) ::= nm(Q) DOT STAR(T). {
    struct sql_ast *n = sql__ast_leaf(p, SQL_AST_STAR, &T);
    n->qualifier = Q.text;
    n->pos = Q.pos;
    A = sql__item(p, n, NULL);
}
item(A) ::= expr(E). { A = sql__item(p, E, NULL); }
item(A) ::= expr(E) AS any(N). { A = sql__item(p, E, &N); }
item(A) ::= expr(E) ID(N). { A = sql__item(p, E, &N); }

%type from {struct { struct sql_token table, alias; }}
from(A) ::= . { memset(&A, 0, sizeof A); }
from(A) ::= FROM nm(T) alias(L). { A.table = T; A.alias = L; }
from(A) ::= FROM nm(T) alias(L) more_tables(X). { A.table = T; A.alias = L; sql__parse_feature(p, &X, "a join"); }
from(A) ::= FROM LP(T). { A.table = T; A.alias = T; sql__parse_feature(p, &T, "a subquery in FROM"); }
from(A) ::= FROM nm(T) LP(L). { A.table = T; A.alias = L; sql__parse_feature(p, &T, "a function in FROM"); }
from(A) ::= FROM nm(T) DOT nm(L). { A.table = T; A.alias = L; sql__parse_feature(p, &T, "a schema-qualified name"); }
%type more_tables {struct sql_token}
more_tables(A) ::= COMMA(T). { A = T; }
more_tables(A) ::= JOIN(T). { A = T; }
more_tables(A) ::= join_word(T) JOIN. { A = T; }
more_tables(A) ::= join_word(T) OUTER. { A = T; }
%type join_word {struct sql_token}
join_word(A) ::= LEFT(T). { A = T; }
join_word(A) ::= RIGHT(T). { A = T; }
join_word(A) ::= FULL(T). { A = T; }
join_word(A) ::= INNER(T). { A = T; }
join_word(A) ::= CROSS(T). { A = T; }
join_word(A) ::= NATURAL(T). { A = T; }
alias(A) ::= . { memset(&A, 0, sizeof A); }
alias(A) ::= ID(N). { A = N; }
alias(A) ::= AS any(N). { A = N; }

where(A) ::= . { A = NULL; }
where(A) ::= WHERE expr(E). { A = E; }
group(A) ::= . { memset(&A, 0, sizeof A); }
group(A) ::= GROUP BY exprs(L). {
    memset(&A, 0, sizeof A);
    struct sql_ast *next;
    for (struct sql_ast *e = L.first; e; e = next) {
        next = e->next;
        e->next = NULL;
        sql__item_add(p, &A, sql__item(p, e, NULL));
    }
}
having(A) ::= . { A = NULL; }
having(A) ::= HAVING expr(E). { A = E; }
order(A) ::= . { memset(&A, 0, sizeof A); }
order(A) ::= ORDER BY orders(L). { A = L; }
orders(A) ::= order_item(I). { memset(&A, 0, sizeof A); sql__item_add(p, &A, I); }
orders(A) ::= orders(L) COMMA order_item(I). { A = L; sql__item_add(p, &A, I); }
order_item(A) ::= expr(E) direction(D). {
    A = sql__item(p, E, NULL);
    A->descending = D;
    A->nulls_first = D;
}
order_item(A) ::= expr(E) direction(D) NULLS FIRST. {
    A = sql__item(p, E, NULL);
    A->descending = D;
    A->nulls_first = A->nulls_given = true;
}
order_item(A) ::= expr(E) direction(D) NULLS LAST. {
    A = sql__item(p, E, NULL);
    A->descending = D;
    A->nulls_first = false;
    A->nulls_given = true;
}
direction(A) ::= . { A = false; }
direction(A) ::= ASC. { A = false; }
direction(A) ::= DESC. { A = true; }
%type limit {struct { struct sql_ast *limit, *offset; }}
limit(A) ::= . { A.limit = A.offset = NULL; }
limit(A) ::= LIMIT expr(L). { A.limit = L; A.offset = NULL; }
limit(A) ::= LIMIT ALL. { A.limit = A.offset = NULL; }
limit(A) ::= LIMIT ALL OFFSET expr(O). { A.limit = NULL; A.offset = O; }
limit(A) ::= OFFSET expr(O). { A.limit = NULL; A.offset = O; }
limit(A) ::= LIMIT expr(L) OFFSET expr(O). { A.limit = L; A.offset = O; }
limit(A) ::= OFFSET expr(O) LIMIT expr(L). { A.limit = L; A.offset = O; }

/* -- Expressions ------------------------------------------------------------------------------- */
expr(A) ::= INTEGER(T). { A = sql__ast_leaf(p, SQL_AST_INT, &T); }
expr(A) ::= FLOATNUM(T). { A = sql__ast_leaf(p, SQL_AST_FLOAT, &T); }
expr(A) ::= STRING(T). { A = sql__ast_leaf(p, SQL_AST_STRING, &T); }
expr(A) ::= XSTRING(T). { A = sql__ast_leaf(p, SQL_AST_BLOB, &T); }
expr(A) ::= NULL(T). { A = sql__ast_leaf(p, SQL_AST_NULL, &T); }
expr(A) ::= TRUE(T). { A = sql__ast_leaf(p, SQL_AST_BOOL, &T); A->flag = true; }
expr(A) ::= FALSE(T). { A = sql__ast_leaf(p, SQL_AST_BOOL, &T); }
expr(A) ::= DEFAULT(T). { A = sql__ast_leaf(p, SQL_AST_DEFAULT, &T); }
expr(A) ::= nm(T) STRING(S). { A = sql__ast_typed(p, &T, &S); }
expr(A) ::= name(N). { A = N; }
expr(A) ::= call(N). { A = N; }
name(A) ::= nm(T). { A = sql__ast_leaf(p, SQL_AST_NAME, &T); }
name(A) ::= nm(Q) DOT nm(T). {
    A = sql__ast_leaf(p, SQL_AST_NAME, &T);
    A->qualifier = Q.text;
    A->pos = Q.pos;
}
call(A) ::= nm(N) LP exprs_opt(L) RP filter(F). { A = sql__ast_call(p, &N, L); A->filter = F; }
call(A) ::= nm(N) LP STAR RP filter(F). { A = sql__ast_call(p, &N, no_list); A->star = true; A->filter = F; }
call(A) ::= nm(N) LP DISTINCT exprs(L) RP filter(F). { A = sql__ast_call(p, &N, L); A->flag = true; A->filter = F; }
call(A) ::= nm(N) LP ALL exprs(L) RP filter(F). { A = sql__ast_call(p, &N, L); A->filter = F; }
call(A) ::= nm(N) LP exprs(L) ORDER(T). { A = sql__ast_call(p, &N, L); sql__parse_feature(p, &T, "ORDER BY in an aggregate"); }
call(A) ::= call(C) OVER(T). { A = C; sql__parse_feature(p, &T, "a window function (OVER)"); }
filter(A) ::= . { A = NULL; }
filter(A) ::= FILTER LP WHERE expr(E) RP. { A = E; }

expr(A) ::= EXTRACT(T) LP any(F) FROM expr(E) RP. {
    A = call_named(p, &T, "date_part", list_of(p, sql__ast_leaf(p, SQL_AST_STRING, &F), E, NULL));
}
expr(A) ::= EXTRACT(T) LP STRING(F) FROM expr(E) RP. {
    A = call_named(p, &T, "date_part", list_of(p, sql__ast_leaf(p, SQL_AST_STRING, &F), E, NULL));
}
expr(A) ::= SUBSTRING(T) LP exprs(L) RP. { A = call_named(p, &T, "substring", L); }
expr(A) ::= SUBSTRING(T) LP expr(E) FROM expr(F) RP. { A = call_named(p, &T, "substring", list_of(p, E, F, NULL)); }
expr(A) ::= SUBSTRING(T) LP expr(E) FROM expr(F) FOR expr(N) RP. { A = call_named(p, &T, "substring", list_of(p, E, F, N)); }
expr(A) ::= SUBSTRING(T) LP expr(E) FOR expr(N) RP. {
    struct sql_token one = T;
    one.text = CHR_LIT("1");
    A = call_named(p, &T, "substring", list_of(p, E, sql__ast_leaf(p, SQL_AST_INT, &one), N));
}
expr(A) ::= TRIM(T) LP exprs(L) RP. { A = call_named(p, &T, "btrim", L); }
expr(A) ::= TRIM(T) LP trim_side(S) exprs(L) RP. { A = call_named(p, &T, S, L); }
expr(A) ::= TRIM(T) LP trim_side(S) FROM expr(E) RP. { A = call_named(p, &T, S, list_of(p, E, NULL, NULL)); }
expr(A) ::= TRIM(T) LP trim_side(S) expr(C) FROM expr(E) RP. { A = call_named(p, &T, S, list_of(p, E, C, NULL)); }
expr(A) ::= TRIM(T) LP expr(C) FROM expr(E) RP. { A = call_named(p, &T, "btrim", list_of(p, E, C, NULL)); }
%type trim_side {const char *}
trim_side(A) ::= BOTH. { A = "btrim"; }
trim_side(A) ::= LEADING. { A = "ltrim"; }
trim_side(A) ::= TRAILING. { A = "rtrim"; }

expr(A) ::= LP expr(E) RP. { A = E; A->parens = true; }
expr(A) ::= LP(T) SELECT. { A = sql__ast_leaf(p, SQL_AST_NULL, &T); sql__parse_feature(p, &T, "a subquery"); }
expr(A) ::= EXISTS(T) LP SELECT. { A = sql__ast_leaf(p, SQL_AST_NULL, &T); sql__parse_feature(p, &T, "a subquery"); }

expr(A) ::= CAST(T) LP expr(E) AS typename(N) RP. { A = sql__ast_cast(p, T.pos, E, &N); }
expr(A) ::= expr(E) TYPECAST(T) typename(N). { A = sql__ast_cast(p, T.pos, E, &N); }
typename(A) ::= any_type(T). { A = T; }
typename(A) ::= any_type(T) PRECISION. { A = T; }
typename(A) ::= any_type(T) LP(L) INTEGER. { A = T; sql__parse_feature(p, &L, "a length or precision of a type"); }
%type any_type {struct sql_token}
any_type(A) ::= ID(T). { A = T; }

expr(A) ::= CASE(T) whens(L) else(E) END. {
    if (E)
        sql__list_add(p, &L, E);
    A = sql__ast_args(p, SQL_AST_CASE, T.pos, L);
    A->star = E != NULL;
}
expr(A) ::= CASE(T) expr(X) whens(L) else(E) END. {
    sql__list_prepend(p, &L, X);
    if (E)
        sql__list_add(p, &L, E);
    A = sql__ast_args(p, SQL_AST_CASE, T.pos, L);
    A->flag = true;
    A->star = E != NULL;
}
%type else {struct sql_ast *}
else(A) ::= . { A = NULL; }
else(A) ::= ELSE expr(E). { A = E; }
whens(A) ::= WHEN expr(C) THEN expr(V). { A = list_of(p, C, V, NULL); }
whens(A) ::= whens(L) WHEN expr(C) THEN expr(V). { A = L; sql__list_add(p, &A, C); sql__list_add(p, &A, V); }

expr(A) ::= expr(X) OR(T) expr(Y). { A = sql__ast_chain(p, SQL_OP_OR, T.pos, X, Y); }
expr(A) ::= expr(X) AND(T) expr(Y). { A = sql__ast_chain(p, SQL_OP_AND, T.pos, X, Y); }
expr(A) ::= NOT(T) expr(X). { A = sql__ast_negate(p, T.pos, X); }
expr(A) ::= expr(X) EQ(T) expr(Y). { A = sql__ast_op(p, SQL_OP_EQ, T.pos, X, Y, NULL); }
expr(A) ::= expr(X) NE(T) expr(Y). { A = sql__ast_op(p, SQL_OP_NE, T.pos, X, Y, NULL); }
expr(A) ::= expr(X) LT(T) expr(Y). { A = sql__ast_op(p, SQL_OP_LT, T.pos, X, Y, NULL); }
expr(A) ::= expr(X) LE(T) expr(Y). { A = sql__ast_op(p, SQL_OP_LE, T.pos, X, Y, NULL); }
expr(A) ::= expr(X) GT(T) expr(Y). { A = sql__ast_op(p, SQL_OP_GT, T.pos, X, Y, NULL); }
expr(A) ::= expr(X) GE(T) expr(Y). { A = sql__ast_op(p, SQL_OP_GE, T.pos, X, Y, NULL); }
expr(A) ::= expr(X) CONCAT(T) expr(Y). { A = sql__ast_op(p, SQL_OP_CONCAT, T.pos, X, Y, NULL); }
expr(A) ::= expr(X) PLUS(T) expr(Y). { A = sql__ast_op(p, SQL_OP_ADD, T.pos, X, Y, NULL); }
expr(A) ::= expr(X) MINUS(T) expr(Y). { A = sql__ast_op(p, SQL_OP_SUB, T.pos, X, Y, NULL); }
expr(A) ::= expr(X) STAR(T) expr(Y). { A = sql__ast_op(p, SQL_OP_MUL, T.pos, X, Y, NULL); }
expr(A) ::= expr(X) SLASH(T) expr(Y). { A = sql__ast_op(p, SQL_OP_DIV, T.pos, X, Y, NULL); }
expr(A) ::= expr(X) PERCENT(T) expr(Y). { A = sql__ast_op(p, SQL_OP_MOD, T.pos, X, Y, NULL); }
expr(A) ::= expr(X) CARET(T) expr(Y). { A = sql__ast_op(p, SQL_OP_POW, T.pos, X, Y, NULL); }
expr(A) ::= MINUS(T) expr(X). [UMINUS] { A = sql__ast_op(p, SQL_OP_NEG, T.pos, X, NULL, NULL); }
expr(A) ::= PLUS expr(X). [UMINUS] { A = X; }

expr(A) ::= expr(X) ISNULL(T). { A = sql__ast_op(p, SQL_OP_IS_NULL, T.pos, X, NULL, NULL); }
expr(A) ::= expr(X) NOTNULL(T). { A = sql__ast_op(p, SQL_OP_IS_NOT_NULL, T.pos, X, NULL, NULL); }
expr(A) ::= expr(X) IS(T) is_not(N) NULL. [IS] { A = sql__ast_op(p, N ? SQL_OP_IS_NOT_NULL : SQL_OP_IS_NULL, T.pos, X, NULL, NULL); }
expr(A) ::= expr(X) IS(T) is_not(N) UNKNOWN. [IS] { A = sql__ast_op(p, N ? SQL_OP_IS_NOT_NULL : SQL_OP_IS_NULL, T.pos, X, NULL, NULL); A->flag = true; }
expr(A) ::= expr(X) IS(T) is_not(N) TRUE. [IS] { A = sql__ast_op(p, N ? SQL_OP_IS_NOT_TRUE : SQL_OP_IS_TRUE, T.pos, X, NULL, NULL); }
expr(A) ::= expr(X) IS(T) is_not(N) FALSE. [IS] { A = sql__ast_op(p, N ? SQL_OP_IS_NOT_FALSE : SQL_OP_IS_FALSE, T.pos, X, NULL, NULL); }
expr(A) ::= expr(X) IS(T) is_not(N) DISTINCT FROM expr(Y). [IS] { A = sql__ast_op(p, N ? SQL_OP_NOT_DISTINCT : SQL_OP_DISTINCT, T.pos, X, Y, NULL); }
%type is_not {bool}
is_not(A) ::= . { A = false; }
is_not(A) ::= NOT. { A = true; }

/* NOT_LA is a NOT before LIKE, ILIKE, IN or BETWEEN (the driver looks ahead): it binds like them. */
%type like_op {struct { bool negate; enum sql_op op; uint32_t pos; }}
like_op(A) ::= LIKE(T). { A.negate = false; A.op = SQL_OP_LIKE; A.pos = T.pos; }
like_op(A) ::= ILIKE(T). { A.negate = false; A.op = SQL_OP_ILIKE; A.pos = T.pos; }
like_op(A) ::= NOT_LA LIKE(T). { A.negate = true; A.op = SQL_OP_LIKE; A.pos = T.pos; }
like_op(A) ::= NOT_LA ILIKE(T). { A.negate = true; A.op = SQL_OP_ILIKE; A.pos = T.pos; }
%type in_op {struct { bool negate; uint32_t pos; }}
in_op(A) ::= IN(T). { A.negate = false; A.pos = T.pos; }
in_op(A) ::= NOT_LA IN(T). { A.negate = true; A.pos = T.pos; }
%type between_op {struct { bool negate; uint32_t pos; }}
between_op(A) ::= BETWEEN(T). { A.negate = false; A.pos = T.pos; }
between_op(A) ::= NOT_LA BETWEEN(T). { A.negate = true; A.pos = T.pos; }
expr(A) ::= expr(X) like_op(O) expr(Y). [LIKE] { A = not_if(p, O.negate, O.pos, sql__ast_op(p, O.op, O.pos, X, Y, NULL)); }
expr(A) ::= expr(X) like_op(O) expr(Y) ESCAPE expr(Z). [LIKE] { A = not_if(p, O.negate, O.pos, sql__ast_op(p, O.op, O.pos, X, Y, Z)); }
expr(A) ::= expr(X) between_op(O) expr(Y) AND expr(Z). [BETWEEN] { A = not_if(p, O.negate, O.pos, sql__ast_op(p, SQL_OP_BETWEEN, O.pos, X, Y, Z)); }
expr(A) ::= expr(X) in_op(O) LP exprs(L) RP. [IN] {
    sql__list_prepend(p, &L, X);
    struct sql_ast *e = sql__ast_args(p, SQL_AST_OP, O.pos, L);
    e->op = SQL_OP_IN;
    A = not_if(p, O.negate, O.pos, e);
}
expr(A) ::= expr(X) in_op LP SELECT(T). [IN] { A = X; sql__parse_feature(p, &T, "a subquery"); }
/* Only inside position(… IN …): the call turns it into strpos, elsewhere it is an error. */
expr(A) ::= expr(X) IN(T) inarg(Y). [IN] { A = sql__ast_op(p, SQL_OP_POSITION, T.pos, X, Y, NULL); }
inarg(A) ::= STRING(T). { A = sql__ast_leaf(p, SQL_AST_STRING, &T); }
inarg(A) ::= name(N). { A = N; }
inarg(A) ::= call(N). { A = N; }

exprs(A) ::= expr(E). { A = list_of(p, E, NULL, NULL); }
exprs(A) ::= exprs(L) COMMA expr(E). { A = L; sql__list_add(p, &A, E); }
exprs_opt(A) ::= . { A = no_list; }
exprs_opt(A) ::= exprs(L). { A = L; }

/* -- INSERT, UPDATE, DELETE -------------------------------------------------------------------- */
cmd(A) ::= INSERT(T) INTO nm(N) names_opt(C) values(V) conflict(F). {
    A = V;
    A->pos = T.pos;
    A->table = N.text;
    A->table_pos = N.pos;
    A->columns = C;
    A->conflict = F.action;
    A->conflict_columns = F.columns;
    A->conflict_set = F.sets;
    A->conflict_pos = F.pos;
}
cmd(A) ::= INSERT(T) INTO nm(N) names_opt(C) select(S) conflict(F). {
    A = sql__stmt(p, SQL_STMT_INSERT);
    A->pos = T.pos;
    A->table = N.text;
    A->table_pos = N.pos;
    A->columns = C;
    A->select = S;
    A->conflict = F.action;
    A->conflict_columns = F.columns;
    A->conflict_set = F.sets;
    A->conflict_pos = F.pos;
}
values(A) ::= VALUES LP(T) exprs(L) RP. { A = sql__stmt(p, SQL_STMT_INSERT); sql__row_add(p, A, T.pos, L); }
values(A) ::= values(V) COMMA LP(T) exprs(L) RP. { A = V; sql__row_add(p, A, T.pos, L); }
%type conflict {struct { int action; uint32_t pos; struct sql_name_list columns; struct sql_item_list sets; }}
conflict(A) ::= . { memset(&A, 0, sizeof A); }
conflict(A) ::= ON(T) CONFLICT names_opt(C) DO NOTHING. {
    memset(&A, 0, sizeof A);
    A.action = SQL_CONFLICT_NOTHING;
    A.pos = T.pos;
    A.columns = C;
}
conflict(A) ::= ON(T) CONFLICT names_opt(C) DO UPDATE SET sets(S). {
    memset(&A, 0, sizeof A);
    A.action = SQL_CONFLICT_UPDATE;
    A.pos = T.pos;
    A.columns = C;
    A.sets = S;
}
cmd(A) ::= UPDATE(T) nm(N) alias(L) SET sets(S) where(W). {
    A = sql__stmt(p, SQL_STMT_UPDATE);
    A->pos = T.pos;
    A->table = N.text;
    A->table_pos = N.pos;
    A->alias = L.text;
    A->items = S;
    A->where = W;
}
cmd(A) ::= DELETE(T) FROM nm(N) alias(L) where(W). {
    A = sql__stmt(p, SQL_STMT_DELETE);
    A->pos = T.pos;
    A->table = N.text;
    A->table_pos = N.pos;
    A->alias = L.text;
    A->where = W;
}
sets(A) ::= set_item(I). { memset(&A, 0, sizeof A); sql__item_add(p, &A, I); }
sets(A) ::= sets(L) COMMA set_item(I). { A = L; sql__item_add(p, &A, I); }
set_item(A) ::= any(N) EQ expr(E). { A = sql__item(p, E, &N); A->pos = N.pos; }
names(A) ::= any(N). { memset(&A, 0, sizeof A); sql__name_add(p, &A, &N); }
names(A) ::= names(L) COMMA any(N). { A = L; sql__name_add(p, &A, &N); }
names_opt(A) ::= . { memset(&A, 0, sizeof A); }
names_opt(A) ::= LP names(L) RP. { A = L; }
any(A) ::= nm(T). { A = T; }

/* -- Tables ------------------------------------------------------------------------------------ */
cmd(A) ::= CREATE(T) TABLE if_not_exists(X) nm(N) LP table_def(D) RP with(W). {
    A = D;
    A->pos = T.pos;
    A->if_existence = X;
    A->table = N.text;
    A->table_pos = N.pos;
    A->options = W.first;
}
if_not_exists(A) ::= . { A = false; }
if_not_exists(A) ::= IF NOT EXISTS. { A = true; }
table_def(A) ::= column(C). { A = sql__stmt(p, SQL_STMT_CREATE_TABLE); sql__column_add(p, A, C); }
table_def(A) ::= table_def(D) COMMA column(C). { A = D; sql__column_add(p, A, C); }
table_def(A) ::= table_def(D) COMMA PRIMARY(T) KEY LP names(L) RP. {
    A = D;
    if (A->primary_key.count)
        sql__parse_fail(p, "42P16", T.pos, "multiple primary keys for a table are not allowed");
    A->primary_key = L;
    A->primary_key_pos = T.pos;
}
table_def(A) ::= table_def(D) COMMA table_constraint(T). { A = D; sql__parse_feature(p, &T, NULL); }
%type table_constraint {struct sql_token}
table_constraint(A) ::= UNIQUE(T) LP. { A = T; }
table_constraint(A) ::= CHECK(T). { A = T; }
table_constraint(A) ::= CONSTRAINT(T). { A = T; }
table_constraint(A) ::= FOREIGN(T). { A = T; }
column(A) ::= nm(N) typename(T). { A = sql__column(p, &N, &T); }
column(A) ::= column(C) NOT NULL. { A = C; A->not_null = true; }
column(A) ::= column(C) NULL. { A = C; }
column(A) ::= column(C) PRIMARY KEY. { A = C; A->primary_key = true; }
column(A) ::= column(C) column_constraint(T). { A = C; sql__parse_feature(p, &T, NULL); }
%type column_constraint {struct sql_token}
column_constraint(A) ::= UNIQUE(T). { A = T; }
column_constraint(A) ::= CHECK(T). { A = T; }
column_constraint(A) ::= DEFAULT(T). { A = T; }
column_constraint(A) ::= REFERENCES(T). { A = T; }
column_constraint(A) ::= CONSTRAINT(T). { A = T; }

%type with {struct { struct sql_option *first, *last; }}
with(A) ::= . { A.first = A.last = NULL; }
with(A) ::= WITH options(L). { A = L; }
with(A) ::= WITH LP options(L) RP. { A = L; }
%type options {struct { struct sql_option *first, *last; }}
options(A) ::= option(O). { A.first = A.last = O; }
options(A) ::= options(L) COMMA option(O). { A = L; A.last->next = O; A.last = O; }
option(A) ::= any(N) EQ option_value(V). { A = V; A->name = N.text; A->pos = N.pos; }
option(A) ::= any(N) EQ LP option_values(V) RP. { A = V; A->name = N.text; A->pos = N.pos; }
option_values(A) ::= option_value(V). { A = V; }
option_values(A) ::= option_values(L) COMMA STRING(T). { A = L; sql__name_add(p, &A->values, &T); }
option_value(A) ::= STRING(T). { A = sql__option(p, &T, SQL_VALUE_STRING, &T); }
option_value(A) ::= INTEGER(T). { A = sql__option(p, &T, SQL_VALUE_NUMBER, &T); }
option_value(A) ::= FLOATNUM(T). { A = sql__option(p, &T, SQL_VALUE_NUMBER, &T); }
option_value(A) ::= DURATION(T). { A = sql__option(p, &T, SQL_VALUE_WORD, &T); }
option_value(A) ::= any(T). { A = sql__option(p, &T, SQL_VALUE_WORD, &T); }

cmd(A) ::= DROP(T) TABLE if_exists(X) nm(N). {
    A = sql__stmt(p, SQL_STMT_DROP_TABLE);
    A->pos = T.pos;
    A->if_existence = X;
    A->table = N.text;
    A->table_pos = N.pos;
}
if_exists(A) ::= . { A = false; }
if_exists(A) ::= IF EXISTS. { A = true; }
cmd(A) ::= TRUNCATE(T) table_word nm(N). {
    A = sql__stmt(p, SQL_STMT_TRUNCATE);
    A->pos = T.pos;
    A->table = N.text;
    A->table_pos = N.pos;
}
table_word ::= .
table_word ::= TABLE.

/* -- The rest ---------------------------------------------------------------------------------- */
cmd(A) ::= GRANT(T) privileges(P) ON table_word names(N) TO grantees(G). {
    A = G;
    A->pos = T.pos;
    A->privileges = P;
    A->tables = N;
}
cmd(A) ::= REVOKE(T) privileges(P) ON table_word names(N) FROM grantees(G). {
    A = G;
    A->pos = T.pos;
    A->privileges = P;
    A->tables = N;
    A->revoke = true;
}
%type privileges {struct sql_name_list}
%type privilege {struct sql_token}
privileges(A) ::= ALL. { memset(&A, 0, sizeof A); }
privileges(A) ::= ALL nm(W). { memset(&A, 0, sizeof A); sql__word(p, &W, "privileges"); }
privileges(A) ::= privilege(P). { memset(&A, 0, sizeof A); sql__name_add(p, &A, &P); }
privileges(A) ::= privileges(L) COMMA privilege(P). { A = L; sql__name_add(p, &A, &P); }
privilege(A) ::= SELECT(T). { A = T; }
privilege(A) ::= nm(T). { A = T; }
%type grantees {struct sql_stmt *}
%type grantee {struct sql_grantee *}
grantees(A) ::= grantee(G). { A = sql__stmt(p, SQL_STMT_GRANT); sql__grantee_add(A, G); }
grantees(A) ::= grantees(L) COMMA grantee(G). { A = L; sql__grantee_add(A, G); }
grantee(A) ::= nm(N). { A = sql__grantee(p, NULL, &N); }
grantee(A) ::= nm(W) ID(N). { A = sql__grantee(p, &W, &N); }

cmd(A) ::= SHOW(T) TABLES. { A = sql__stmt(p, SQL_STMT_SHOW_TABLES); A->pos = T.pos; }
cmd(A) ::= SHOW(T) any(N). { A = sql__stmt(p, SQL_STMT_SHOW); A->pos = T.pos; A->name = N.text; A->name_pos = N.pos; }
cmd(A) ::= describe(T) table_word nm(N). {
    A = sql__stmt(p, SQL_STMT_DESCRIBE);
    A->pos = T.pos;
    A->table = N.text;
    A->table_pos = N.pos;
}
%type describe {struct sql_token}
describe(A) ::= DESCRIBE(T). { A = T; }
describe(A) ::= DESC(T). { A = T; }
cmd(A) ::= EXPLAIN(T) analyze(X) select(S). {
    A = sql__stmt(p, SQL_STMT_EXPLAIN);
    A->pos = T.pos;
    A->analyze = X;
    A->select = S;
}
%type analyze {bool}
analyze(A) ::= . { A = false; }
analyze(A) ::= ANALYZE. { A = true; }
cmd(A) ::= SET(T) any(N) eq_or_to set_value(V). {
    A = sql__stmt(p, SQL_STMT_SET);
    A->pos = T.pos;
    A->name = N.text;
    A->name_pos = N.pos;
    A->value = V;
}
eq_or_to ::= EQ.
eq_or_to ::= TO.
set_value(A) ::= option_value(V). { A = V; }
set_value(A) ::= DEFAULT(T). { A = sql__option(p, &T, SQL_VALUE_WORD, &T); }
set_value(A) ::= MINUS INTEGER(T). { T.text = CHR_LIT("-1"); A = sql__option(p, &T, SQL_VALUE_NUMBER, &T); }
cmd(A) ::= RETRY(T) REJECTS FOR nm(N). {
    A = sql__stmt(p, SQL_STMT_RETRY_REJECTS);
    A->pos = T.pos;
    A->table = N.text;
    A->table_pos = N.pos;
}
cmd(A) ::= ALTER(T) CLUSTER any(W) STRING(N). {
    A = sql__stmt(p, SQL_STMT_ALTER_CLUSTER);
    A->pos = T.pos;
    A->table = W.text;
    A->table_pos = W.pos;
    A->name = N.text;
    A->name_pos = N.pos;
}
cmd(A) ::= KILL(T) CLIENT STRING(N). {
    A = sql__stmt(p, SQL_STMT_KILL_CLIENT);
    A->pos = T.pos;
    A->name = N.text;
    A->name_pos = N.pos;
}
