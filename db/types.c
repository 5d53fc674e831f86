/* db/types.c: names of types. */
#include "db/types.h"

const char *db_type_name(enum db_type type)
{
    switch (type) {
    case DB_INT:
        return "INT";
    case DB_FLOAT:
        return "FLOAT";
    case DB_BOOLEAN:
        return "BOOLEAN";
    case DB_TIMESTAMP:
        return "TIMESTAMP";
    case DB_STRING:
        return "STRING";
    case DB_BLOB:
        return "BLOB";
    }
    return "?";
}
