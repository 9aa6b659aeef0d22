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
#include "limits.h"

struct library { const char *name; char version[32]; };

static bool run(const struct settings *s, const struct term *t, struct unmask_err *err)
{
    (void)t;
    if (!s->version && !cmd_expect_args(s, 0, err)) return false;     /* `unmask run x --version` asks for no run */
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
    struct library libraries[] = {
        { "SLEEF", "" }, { "libyaml", "" }, { "jansson", JANSSON_VERSION }, { "PCRE2", "" }, { "utf8proc", "" },
    };
    enum { N = sizeof libraries / sizeof *libraries, LONGEST = sizeof libraries->version };
    snprintf(libraries[0].version, LONGEST, "%d.%d", SLEEF_VERSION_MAJOR, SLEEF_VERSION_MINOR);
    snprintf(libraries[1].version, LONGEST, "%s", yaml_get_version_string());
    snprintf(libraries[3].version, LONGEST, "%d.%d", PCRE2_MAJOR, PCRE2_MINOR);
    snprintf(libraries[4].version, LONGEST, "%s", utf8proc_version());
    if (s->json) {
        json_t *versions = json_object();
        for (int i = 0; i < N; i++) json_object_set_new(versions, libraries[i].name, json_string(libraries[i].version));
        json_t *o = json_pack("{s:s,s:s,s:i,s:s,s:O,s:o}", "version", UNMASK_VERSION, "cpu", cpu, "cores", limits_cores(),
                              "isa", best, "isas", names, "libraries", versions);
        json_dumpf(o, stdout, JSON_COMPACT);
        putchar('\n');
        json_decref(o);
    } else {
        printf("unmask %s\nCPU      %s, %d cores\nKernels  %s (of %s)\n", UNMASK_VERSION, cpu, limits_cores(), best, sets);
        for (int i = 0; i < N; i++) printf("%-8s %s\n", libraries[i].name, libraries[i].version);
    }
    json_decref(names);
    return true;
}

const struct command cmd_version = {
    "version", CMD_VERSION, run, "version [--json]", "version, libraries, instruction sets", "  unmask version\n"
};
