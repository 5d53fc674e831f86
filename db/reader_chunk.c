#include "db/scan_internal.h"
void db__reader_chunk_free(db_reader *reader)
{
    (void)reader;
}
int db__reader_chunk_open(db_reader *r, struct db__chunk *c, struct chr_errmsg *m)
{
    (void)r, (void)c;
    return chr_fail(m, CHR_EUNSUPPORTED, "no chunks yet");
}
void db__reader_chunk_close(db_reader *r)
{
    (void)r;
}
bool db__reader_chunk_stats(db_reader *r, uint32_t s, struct db_column_stats *st)
{
    (void)r, (void)s, (void)st;
    return false;
}
chr_err db__reader_chunk_select(db_reader *r, bool *a, uint32_t *c, struct chr_errmsg *m)
{
    (void)r, (void)a, (void)c;
    return chr_fail(m, CHR_EUNSUPPORTED, "no chunks yet");
}
chr_err db__reader_chunk_column(db_reader *r, uint32_t s, struct chr_errmsg *m)
{
    (void)r, (void)s;
    return chr_fail(m, CHR_EUNSUPPORTED, "no chunks yet");
}
chr_err db__reader_chunk_ids(db_reader *r, struct db_row_id *o, struct chr_errmsg *m)
{
    (void)r, (void)o;
    return chr_fail(m, CHR_EUNSUPPORTED, "no chunks yet");
}
