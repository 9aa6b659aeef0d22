#!/bin/sh
# The same passes over the same files (random weights) through Unmask and through a published build of llama.cpp, in turn; ratios
# of medians as a Markdown table; then a whole generation (prompt of 32 tokens, 64 masks, 16 steps, --reuse fast) against the 16
# passes over 96 tokens that it takes without reuse.  Processor seconds (of all threads, waiting included) tell more than the clock where other programs
# take part of the machine, best with THREADS=1.
#   tests/interop/bench_peers.sh BUILD [SHAPE...]    shapes: 0.5b llada-8b; needs npm and the network on the first run
# THREADS (all cores), ROUNDS (3; 2 for llada-8b) and TOKENS ("32 128 512") come from the environment.
set -eu
cd "$(dirname "$0")/../.."
. tests/bench_files.sh
build=${1:-build}; [ $# -gt 0 ] && shift
[ $# -gt 0 ] || set -- 0.5b llada-8b
version=3.22.1 cache=$build/interop/llama
threads=${THREADS:-$(nproc)} tokens=${TOKENS:-32 128 512}
bins=$(pwd)/$cache/package/bins/linux-x64
[ "${cache#/}" = "$cache" ] || bins=$cache/package/bins/linux-x64

[ "$(uname -m)" = x86_64 ] || { echo "bench_peers.sh: the build to compare with is for x86-64" >&2; exit 1; }
mkdir -p "$cache"
if [ ! -f "$bins/libllama.v0.5.0.so" ]; then
    command -v npm >/dev/null || { echo "bench_peers.sh: npm is needed" >&2; exit 1; }
    (cd "$cache" && npm pack --silent "@node-llama-cpp/linux-x64@$version" >/dev/null && tar xzf ./*.tgz)
fi
${CC:-cc} -O2 -o "$cache/llama_pass" tests/interop/llama_pass.c \
    -L "$bins" -l:libllama.v0.5.0.so -l:libggml.v0.5.0.so -l:libggml-base.so -Wl,-rpath,"$bins"

# Lines "TOKENS SECONDS PROCESSOR_SECONDS" of one run, to standard output
run_unmask() {
    "$build/unmask" bench --no-config -m "$1" --tokens "$(echo "$tokens" | tr ' ' ,)" --logit-rows 32 -t "$threads" --json |
        tr '{' '\n' | tr -d '",' | awk '/^test: pass/ {
            for (i = 1; i < NF; i++) value[$i] = $(i + 1)
            print value["tokens:"], value["seconds:"], value["cpu_seconds:"]; print "load", value["load_seconds:"], 0
        }'
}
# shellcheck disable=SC2086
run_llama() { "$cache/llama_pass" "$1" "$bins" "$threads" 32 $tokens; }

# Lines "generation SECONDS 0" on both sides
run_generation() {
    "$build/unmask" run --no-config -m "$1" --prompt-ids "$(seq -s, 3 34)" --gen-length 64 --steps 16 --reuse fast --early-stop off -t "$threads" --json |
        sed 's/.*"ms_total":\([0-9.]*\).*/\1/' | awk '{ print "generation", $1 / 1000, 0 }'
}
run_16_passes() { "$cache/llama_pass" "$1" "$bins" "$threads" 32 96 | awk '$1 == 96 { print "generation", 16 * $2, 0 }'; }

# median FILE KEY FIELD
median() {
    awk -v key="$2" -v field="$3" '$1 == key { print $field }' "$cache/$1" | sort -g |
        awk '{ v[NR] = $1 } END { print (NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2) }'
}

"$build/unmask" version | sed -n '1,3p'
echo "llama.cpp as of the npm package @node-llama-cpp/linux-x64 $version; $threads threads, 32 logit rows, Q4_0"
echo
echo "| shape | tokens | unmask s | llama.cpp s | ratio | unmask CPU s | llama.cpp CPU s | ratio |"
echo "|---|---|---|---|---|---|---|---|"
shapes=$* model=
trap 'rm -f "$model"' EXIT
for shape in $shapes; do
    model=$(bench_file "$build/unmask" "$shape" q4_0) || { echo "| $shape | not enough memory or disk | | | | | | |"; continue; }
    rounds=${ROUNDS:-3}
    [ "$shape" != llada-8b ] || rounds=${ROUNDS:-2}
    rm -f "$cache/ours" "$cache/theirs"
    for _ in $(seq "$rounds"); do
        run_unmask "$model" >>"$cache/ours"
        run_llama "$model" >>"$cache/theirs"
        run_generation "$model" >>"$cache/ours"
        run_16_passes "$model" >>"$cache/theirs"
    done
    for n in $tokens load generation; do
        set -- "$(median ours "$n" 2)" "$(median theirs "$n" 2)" "$(median ours "$n" 3)" "$(median theirs "$n" 3)"
        awk -v s="$shape" -v n="$n" -v a="$1" -v b="$2" -v c="$3" -v d="$4" 'BEGIN {
            printf "| %s | %s | %.4g | %.4g | %.2f |", s, n, a, b, a / b
            if (d > 0) printf " %.4g | %.4g | %.2f |\n", c, d, c / d; else print " | | |"
        }'
    done
    rm -f "$model"
done
