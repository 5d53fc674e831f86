/* broker/commands/log_output.h: where log lines go and how they look, from the settings; one of the
 * parts of a reload. There is one log for the process. Main thread, or the one that reloads. */
#ifndef CHR_BROKER_COMMANDS_LOG_OUTPUT_H
#define CHR_BROKER_COMMANDS_LOG_OUTPUT_H

#include <stdbool.h>

#include "broker/config.h"
#include "broker/reload.h"

/* Opens what config names. keep_screen: the prompt has the terminal; lines for stderr and stdout go
 * where it says (chr_log_set_output). */
CHR_MUST_USE chr_err log_output_start(const struct broker_config *config, bool keep_screen,
                                      struct chr_errmsg *msg);
/* Opens the log file again at each reload, so that it can be rotated. */
extern const struct reload_part log_output_reload;
/* Back to stderr; config may go then. */
void log_output_stop(void);

#endif
