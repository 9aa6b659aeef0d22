#!/bin/sh
# unmask plan, and budgets that are kept: what a plan says is what a run takes, and a packed file larger than its budget gives
# the same answers.
unmask="$RUNNER ${UNMASK:-build/unmask}"
passed=0; failed=0
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
ok() { passed=$((passed + 1)); }
bad() { failed=$((failed + 1)); echo "$1"; }
same() { if [ "$2" = "$3" ]; then ok; else bad "$1: \"$2\", need \"$3\""; fi; }
number() { sed 's/.*"'"$1"'": *\([0-9.]*\).*/\1/' "$2"; }
plan() { $unmask plan --no-config "$@" --json >"$dir/plan" 2>"$dir/err"; status=$?; }

demo=models/unmask-demo-6M-v1.0-Q8_0.gguf
export UNMASK_MODEL=$demo
$unmask quantize $demo "$dir/packed.gguf" --layout packed -q || exit 1
ids=17,33,99,250,3,77,400,41

plan
same "the embedded model fits" "$status $(grep -c '"fits":true' "$dir/plan")" "0 1"
for key in budget_bytes weights_bytes resident_bytes streamed_bytes ring_bytes store_bytes work_bytes total_bytes; do
    if grep -q "\"$key\":[0-9]" "$dir/plan"; then ok; else bad "no $key"; fi
done
if grep -q '"seconds_per_step":{"full":[0-9.e-]*,"block":[0-9.e-]*,"lean":[0-9.e-]*}' "$dir/plan"; then ok; else bad "no seconds"; fi
if $unmask plan --no-config >"$dir/text" && grep -q '^Memory .* fits in ' "$dir/text" && grep -q '^Answer .* about ' "$dir/text"; then ok; else bad "text: $(cat "$dir/text")"; fi

$unmask quantize $demo "$dir/named.gguf" q8_0 -q --set "general.name=$(printf 'a\033[2Jb')" || exit 1
same "a name out of a file does not reach the terminal as it is" "$($unmask plan --no-config -m "$dir/named.gguf" | sed -n '1s/,.*//p')" 'Model    a\x1b[2Jb'
rm "$dir/named.gguf"

plan -m "$dir/packed.gguf" --memory 1M
same "too small a budget: status" "$status $(grep -c '"fits":false' "$dir/plan")" "5 1"
if grep -q 'does not fit in memory.*--memory.*E-MEM-002' "$dir/err"; then ok; else bad "$(cat "$dir/err")"; fi
least=$(number smallest_budget_bytes "$dir/plan")
case $UNMASK in *san*) least=$((least + 4000000)) ;; esac     # a sanitizer's own memory differs from run to run
plan -m $demo --memory 1M
if [ "$status" = 5 ] && grep -q "unmask quantize $demo packed.gguf --layout packed" "$dir/err"; then ok; else bad "standard file: $(cat "$dir/err")"; fi
spaced="$dir/it's mine.gguf"
ln -s "$(pwd)/$demo" "$spaced"
$unmask plan --no-config -m "$spaced" --memory 1M >"$dir/out" 2>"$dir/err"
eval "set -- $(sed 's/.*: unmask \(quantize .*\) \[E-MEM-002.*/\1/; q' "$dir/err" | sed 's/packed.gguf/"$dir\/typed.gguf"/')"
if $unmask "$@" -q 2>"$dir/err" && [ -s "$dir/typed.gguf" ]; then ok; else bad "the command to type: $*: $(cat "$dir/err")"; fi
for size in 3 1.5.5M 0% 101% 12X 1TB2 -5M ""; do
    $unmask plan --no-config --memory "$size" >"$dir/out" 2>"$dir/err"
    if [ $? = 2 ] && grep -q 'a size such as 900M' "$dir/err"; then ok; else bad "--memory $size: $(cat "$dir/err")"; fi
done
plan --memory 50%; same "a share" "$status" 0

# with the smallest budget, and a little more: the same answers; the peak is what was planned (not under a sanitizer or emulator)
$unmask run --no-config -n 64 --early-stop off "turn on the kitchen light" --json >"$dir/whole" || bad "whole"
$unmask forward --no-config --ids $ids --logits "$dir/whole.npy" || bad "whole pass"
for more in 400000 1500000 3000000; do
    $unmask run --no-config -m "$dir/packed.gguf" --memory $((least + more)) -n 64 --early-stop off "turn on the kitchen light" --json >"$dir/part" 2>"$dir/err" || bad "run: $(cat "$dir/err")"
    same "answer" "$(sed 's/.*"ids":\[\([^]]*\).*/\1/' "$dir/part")" "$(sed 's/.*"ids":\[\([^]]*\).*/\1/' "$dir/whole")"
    $unmask forward --no-config -m "$dir/packed.gguf" --memory $((least + more)) --ids $ids --logits "$dir/part.npy" --force 2>"$dir/err" || bad "forward: $(cat "$dir/err")"
    if cmp -s "$dir/whole.npy" "$dir/part.npy"; then ok; else bad "other logits with $more bytes more than the least"; fi
    case $UNMASK in *san*) continue ;; esac
    if [ -z "$RUNNER" ]; then
        peak=$(number peak_rss_bytes "$dir/part")
        if [ "$peak" -le $((least + more)) ]; then ok; else bad "peak $peak over the budget $((least + more))"; fi
    fi
done
for command in "run hello" "infill a[[4]]b" "eval --exact-match $dir/q.jsonl"; do
    echo '{"q":"turn on the kitchen light","a":"x"}' >"$dir/q.jsonl"
    $unmask ${command%% *} --no-config -m "$dir/packed.gguf" --memory $((least + 1200000)) ${command#* } >"$dir/out" 2>"$dir/err" && ok || bad "$command: $(cat "$dir/err")"
    $unmask ${command%% *} --no-config -m "$dir/packed.gguf" --memory 1M ${command#* } >"$dir/out" 2>"$dir/err"; same "$command in 1M" "$?" 5
done
echo hello | $unmask chat --no-config -m "$dir/packed.gguf" --memory $((least + 1200000)) >"$dir/out" 2>"$dir/err" && ok || bad "chat: $(cat "$dir/err")"
$unmask run --no-config -m "$dir/packed.gguf" --memory $((least + 2500000)) --reuse fast --fill 8 hello >"$dir/out" 2>"$dir/err" && ok || bad "fill: $(cat "$dir/err")"
for profile in raspberry-pi-4 raspberry-pi-4-2gb raspberry-pi-5 raspberry-pi-5-4gb raspberry-pi-5-16gb laptop tiny-ram; do
    $unmask plan -c $profile --json >"$dir/plan" 2>"$dir/err"; same "profile $profile" "$? $(grep -c '"fits":true' "$dir/plan")" "0 1"
done

# In a control group of 2 GB that is full, all but some 0.5 MB of it pages of files, three quarters may be taken; without such pages nothing.
# The group is the root of what is mounted, or the one that /proc/self/cgroup names.
cat >"$dir/group" <<'END'
mount -t tmpfs none /sys/fs/cgroup || exit 1
own() { sed -n "s|^.*$1\(.*[^/]\)/*\$|\1|p" /proc/self/cgroup | head -n 1; }
case $2 in
v2) at=/sys/fs/cgroup; [ "$3" = root ] || at=$at$(own 0::)
    mkdir -p $at; limit=memory.max; used=memory.current; total=
    echo "50000 100000" >$at/cpu.max ;;
v1) at=/sys/fs/cgroup/memory; cpu=/sys/fs/cgroup/cpu; [ "$3" = root ] || at=$at$(own :memory:) cpu=$cpu$(own :cpu:)
    mkdir -p $at $cpu; limit=memory.limit_in_bytes; used=memory.usage_in_bytes; total=total_
    echo 50000 >$cpu/cpu.cfs_quota_us; echo 100000 >$cpu/cpu.cfs_period_us ;;
esac
echo 2147483648 >"$at/$limit"
echo 2147000000 >"$at/$used"
printf 'anon 1\nfile 3\n%sinactive_anon 0\n%sactive_anon 9\n%sinactive_file %s\n%sactive_file %s\n' "$total" "$total" "$total" "$4" "$total" "$4" >"$at/memory.stat"
exec $1
END
group() { unshare -rm sh "$dir/group" "$@" >"$dir/plan" 2>"$dir/err"; }
if unshare -rm mount -t tmpfs none /sys/fs/cgroup 2>/dev/null && [ "$(awk '/^MemAvailable/ { print ($2 > 3000000) }' /proc/meminfo)" = 1 ]; then
    for version in v2 v1; do
        for at in root own; do
            group "$unmask plan --no-config --json" $version $at 1000000000; most=$(number budget_bytes "$dir/plan")
            if [ "$most" -gt 1500000000 ] && [ "$most" -lt 1700000000 ]; then ok; else bad "$version, $at, files: $most"; fi
            group "$unmask plan --no-config --json" $version $at 0; most=$(number budget_bytes "$dir/plan")
            if [ "$most" -lt 200000000 ]; then ok; else bad "$version, $at, no files: $most"; fi
            group "$unmask version --json" $version $at 0; same "$version, $at: half a core is one" "$(number cores "$dir/plan")" 1
        done
    done
else echo "skip: control groups: no namespace of mounts may be made here, or less than 3 GB are available"; fi

# What the system lacks no budget gives: plan and run say the same.
echo "MemAvailable:    4000 kB" >"$dir/meminfo"
there() {                                       # a command where so much memory is available
    unshare -rm sh -c 'mount --bind "$1" /proc/meminfo && shift && exec "$@"' sh "$dir/meminfo" $unmask "$@" --no-config >"$dir/out" 2>"$dir/err"
}
scarce() { there "$@" --memory 1G; }
if unshare -rm mount --bind "$dir/meminfo" /proc/meminfo 2>/dev/null; then
    scarce plan $demo --json; same "plan, memory that is not there" "$? $(grep -c '"fits":false' "$dir/out") $(grep -c 'MiB available, need.*E-MEM-002' "$dir/err")" "5 1 1"
    there plan -m "$dir/packed.gguf" --memory 5M; same "plan, less than what is there and taken" "$? $(grep -c 'a budget of 5.0 MiB' "$dir/err")" "5 1"
    there plan --json; most=$(number budget_bytes "$dir/out")
    if [ "$most" -gt 4072000 ]; then ok; else bad "three quarters of what is there, and what is taken: $most"; fi
    scarce run -m $demo hello; same "run, memory that is not there" "$? $(grep -c 'MiB available, need.*E-MEM-002' "$dir/err")" "5 1"
else echo "skip: memory that is not there: no namespace of mounts may be made here"; fi

# states beside keys and values: what is kept of a row in int8 and a scale for every 128 numbers, for 208 positions of the canvas's tiles
plan --context 200 --reuse fast,thin=50; without=$(number store_bytes "$dir/plan")
plan --context 200 --reuse fast,deep=4; with=$(number store_bytes "$dir/plan")
embd=$($unmask inspect --no-config $demo --json | sed 's/.*"llada.embedding_length":\([0-9]*\).*/\1/')
same "states" $((with - without)) $(((208 * (embd + 4 * ((embd + 127) / 128)) + 63) / 64 * 64))
for reuse in exact fast,deep=4; do
    plan --context 200 -n 72 --reuse $reuse
    if [ -z "$RUNNER" ]; then
        case $UNMASK in *san*) ;; *)
            $unmask run --no-config --context 200 -n 200 --early-stop off --reuse $reuse x --json >"$dir/part" 2>/dev/null
            planned=$(number total_bytes "$dir/plan"); peak=$(number peak_rss_bytes "$dir/part")
            if [ $((planned * 100)) -le $((peak * 110)) ] && [ $((planned * 110)) -ge $((peak * 100)) ]; then ok; else bad "$reuse: planned $planned, peak $peak"; fi ;;
        esac
    fi
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
