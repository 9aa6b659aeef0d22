/* cmd_trace.h - --trace FILE: every denoising step as a JSON line
 * {"step":k,"canvas":[all ids],"committed":[positions in the canvas],"confidence":[what the commit rule compared]};
 * step 0 is the start canvas.  The file appears when the run ends, be it by Ctrl-C. */
#ifndef CMD_TRACE_H
#define CMD_TRACE_H

#include "outfile.h"

/* path may be an older trace or an empty file, which is replaced; anything else needs force. */
bool trace_open(struct outfile *o, const char *path, bool force, struct unmask_err *err);
bool trace_step(struct outfile *o, const struct unmask_step *step, struct unmask_err *err);

#endif
