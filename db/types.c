/* db/types.c: names of types. */
#include "db/types.h"

#include <string.h>
#include <strings.h>

#include "db/catalog.h"

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

static const char *const ack_names[DB_ACK_CLASSES] = {"quorum", "local", "memory"};

const char *db_ack_class_name(enum db_ack_class ack)
{
    return (unsigned)ack < DB_ACK_CLASSES ? ack_names[ack] : "?";
}

int db_ack_class_parse(chr_slice word)
{
    for (int i = 0; i < DB_ACK_CLASSES; i++)
        if (strlen(ack_names[i]) == word.len &&
            strncasecmp(ack_names[i], (const char *)word.ptr, word.len) == 0)
            return i;
    return -1;
}
