/* cmd_version.c - what this program is, what it was built with, and what of this CPU it uses. */
#include <jansson.h>
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <sleef.h>
#include <utf8proc.h>
#include <string.h>
#include <yaml.h>

#include "cmd.h"
#include "cpu.h"
#include "kernels.h"
#include "pool.h"

static bool run(const struct settings *s, const struct term *t, struct unmask_err *err)
{
    (void)t;
    (void)err;
    char cpu[128], sets[256] = "";
    struct kernels k;
    const unsigned have = cpu_detect();
    const char *best = kernels_init(&k, "auto");
    if (!best) best = "none: this CPU lacks AVX2 or FMA";
    cpu_model_name(cpu, sizeof cpu);
    json_t *names = json_array();
    for (const struct kernel_set *set = kernel_sets; set->name; set++) {
        if ((set->needs & have) != set->needs) continue;
        snprintf(sets + strlen(sets), sizeof sets - strlen(sets), "%s%s", *sets ? " " : "", set->name);
        json_array_append_new(names, json_string(set->name));
    }
    if (s->json) {
        json_t *o = json_pack("{s:s,s:s,s:i,s:s,s:O}", "version", UNMASK_VERSION, "cpu", cpu, "cores", pool_cores(), "isa", best, "isas", names);
        json_dumpf(o, stdout, JSON_COMPACT);
        putchar('\n');
        json_decref(o);
    } else
        printf("unmask %s\nCPU      %s, %d cores\nKernels  %s (of %s)\nSLEEF    %d.%d\nlibyaml  %s\njansson  %s\nPCRE2    %d.%d\nutf8proc %s\n", UNMASK_VERSION,
               cpu, pool_cores(), best, sets, SLEEF_VERSION_MAJOR, SLEEF_VERSION_MINOR, yaml_get_version_string(), JANSSON_VERSION, PCRE2_MAJOR, PCRE2_MINOR,
               utf8proc_version());
    json_decref(names);
    return true;
}

const struct command cmd_version = {
    "version", CMD_VERSION, run, "version [--json]", "version, libraries, instruction sets", "  unmask version\n"
};
