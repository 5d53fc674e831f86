/* sqlfront/cli/interrupt.h: Ctrl-C as a descriptor that becomes readable.
 *
 * Between begin and end SIGINT reaches the calling thread alone: it must be blocked in all others
 * (threads inherit the mask, so block it before they are started). */
#ifndef CHR_SQLFRONT_CLI_INTERRUPT_H
#define CHR_SQLFRONT_CLI_INTERRUPT_H

#include <stdbool.h>

/* Takes SIGINT over; false when it can't (no descriptor). */
bool cli_interrupt_begin(void);
/* Gives SIGINT back as it was. */
void cli_interrupt_end(void);
int cli_interrupt_fd(void); /* -1 outside begin and end */
/* Was there one since the last call? */
bool cli_interrupt_taken(void);
/* Waits for an interrupt, or until stop_fd (-1: none) is readable; false when the time has passed
 * with neither. */
bool cli_interrupt_sleep(int timeout_ms, int stop_fd);

#endif
