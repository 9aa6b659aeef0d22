#!/bin/sh
# unmask eval --reuse A --against B: its fields, and figures that cannot be otherwise.
cd "$(dirname "$0")/.." || exit 1
unmask="$RUNNER ${UNMASK:-build/unmask}"; passed=0; failed=0
dir=$(mktemp -d) && trap 'rm -rf "$dir"' EXIT

check() { if [ "$2" = "$3" ]; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "$1: \"$2\", need \"$3\""; fi; }
# What takes long to run (a build with sanitizers) writes texts of 32 tokens: the same code, a sixth of the time.
rows=128.0 short=; [ -z "$UNMASK_TESTS_SHORT" ] || { rows=80.0 short="--gen-length 32"; echo "skip: texts of 128 tokens (UNMASK_TESTS_SHORT): of 32"; }
compare() { $unmask eval --no-config --json "$@" $short >"$dir/out" 2>"$dir/err"; status=$?; }
has() { grep -c "\"$1\":$2[,}]" "$dir/out"; }

compare --reuse exact --against none --limit 1 --mc 16
check "exact against none: status and errors" "$status|$(cat "$dir/err")" "0|"
for field in '"agreement_free":1.0' '"agreement_teacher":1.0' '"agreement_committed":1.0' '"commit_overlap":1.0,"kl":0.0' "\"rows_per_place\":$rows"; do
    check "exact against none: $field" "$(grep -c "$field" "$dir/out")" 1
done
check "the same likelihood" "$(sed 's/.*"nll":\([0-9.]*\),"nll_exact":\([0-9.]*\),.*/\1 \2/' "$dir/out" | awk '{ print ($1 == $2 && $1 > 0.5 && $1 < 5) }')" 1
for field in agreement_free score score_exact rows_per_place speedup agreement_teacher agreement_committed commit_overlap kl nll nll_exact nll_fewer_steps distinct distinct_exact \
             seconds seconds_exact seconds_none; do
    check "field $field" "$(grep -c "\"$field\":" "$dir/out")" 1
done

compare --reuse fast --against exact --limit 1 --mc 16
check "fast: fewer rows" "$(sed 's/.*"stories".*"rows_per_place":\([0-9.]*\),.*/\1/' "$dir/out" | awk '{ print ($1 > 6 && $1 < 9) }')" 1
first=$(sed 's/"seconds[a-z_]*":[^,}]*//g; s/"speedup":[^,}]*//g; s/"[a-z_]*fewer_steps":[^,}]*//g; s/"peak_rss_bytes":[0-9]*//' "$dir/out")
compare --reuse fast --against exact --limit 1 --mc 16 -t 1
again=$(sed 's/"seconds[a-z_]*":[^,}]*//g; s/"speedup":[^,}]*//g; s/"[a-z_]*fewer_steps":[^,}]*//g; s/"peak_rss_bytes":[0-9]*//' "$dir/out")
check "the same figures on one thread" "$again" "$first"
# One candidate cannot be more than one of two commits, but where a block begins: a step of 16.
compare --reuse fast,candidates=1 --against exact --limit 1 --mc 4
check "one candidate for two commits" "$(sed 's/.*"agreement_committed":\([0-9.]*\),"commit_overlap":\([0-9.]*\),.*/\1 \2/' "$dir/out" | awk '{ most = 17 / 32; print ($1 > 0.1 && $1 <= most && $2 > 0.1 && $2 <= $1) }')" 1
# A decision that is taken again counts as it was taken in the end.
compare --reuse fast,candidates=0,margin=10000,spare=16000000 --against exact --limit 1 --mc 1 --gen-length 32
check "every decision taken again" "$(grep -c '"agreement_teacher":1.0,"agreement_committed":1.0,"commit_overlap":1.0,"kl":0.0' "$dir/out")" 1

compare --reuse nothing --against exact --data "$dir/none"; check "an unknown profile" "$status|$(grep -c 'E-GEN-001' "$dir/err")" "2|1"
compare --reuse fast --against bogus --data "$dir/none";  check "an unknown profile to compare with" "$status|$(grep -c '(--against): found bogus' "$dir/err")" "2|1"
compare --reuse fast --against fast,candidates=x;         check "a setting of it" "$status|$(grep -c '(--against): found candidates=x' "$dir/err")" "2|1"
printf '{"x":1}\n' >"$dir/bad.jsonl"
compare --reuse fast --against exact --data "$dir/bad.jsonl"; check "a line of neither kind" "$status|$(grep -c 'E-CLI-012' "$dir/err")" "2|1"
compare --reuse fast --against exact --data "$dir/none";  check "a missing file" "$status|$(grep -c 'E-FILE-001' "$dir/err")" "4|1"

# A packed file that is larger than its budget: the smallest budget is named and suffices, more does too, and the peak stays within
# it (not under a sanitizer or emulator); a text after a shorter one begins another stream, whose bytes are counted, too.
$unmask quantize -q models/unmask-demo-6M-v1.0-Q8_0.gguf "$dir/packed.gguf" f32 --requantize --layout packed
printf '{"text":"Tom had."}\n{"text":"Tom had a red ball. One day he went to the park to play with it, and his friend Ann saw it."}\n' >"$dir/two.jsonl"
short_run() { compare --reuse faithful --against "$1" -m "$dir/packed.gguf" --data "$dir/two.jsonl" --mc 2 -n 32 --memory "$2"; }
for against in exact dual; do
    short_run $against 10M
    check "$against: 10 MiB are too few" "$status|$(grep -c 'E-MEM-002' "$dir/err")" "5|1"
    least=$(grep -o 'need [0-9.]* MiB' "$dir/err" | awk '{ printf "%d", $2 * 1048576 }')
    case $UNMASK in *san*) least=$((least + 4000000)) ;; esac
    for more in 0 1000000 4000000 9000000 22000000; do
        short_run $against $((least + more))
        check "$against, $more bytes more than the least: status and errors" "$status|$(cat "$dir/err")" "0|"
        check "$against, $more: bytes read" "$(sed 's/.*"passes":\([0-9]*\).*"bytes_read":\([0-9.]*\).*/\1 \2/' "$dir/out" \
            | awk -v more=$more '{ print ($2 <= $1 * 24e6 && ($2 > 0) == (more < 10000000)) }')" 1
        case $UNMASK$RUNNER in *san*|*qemu*) continue ;; esac
        check "$against, $more: peak" "$(sed 's/.*"peak_rss_bytes":\([0-9]*\).*/\1/' "$dir/out" | awk -v most=$((least + more)) '{ print $1 <= most ? 1 : $1 }')" 1
    done
done

# Two models: one of them twice differs in nothing; float weights instead of 8-bit ones in little.
model=models/unmask-demo-6M-v1.0-Q8_0.gguf
pair() { compare --compare "$@" --limit 1 --mc 4; }
value() { sed "s/.*\"$1\":{\(.*\)/\1/; s/.*\"$2\":\([0-9.e-]*\)[,}].*/\1/" "$dir/out"; }
pair $model $model
check "a model and itself: status and errors" "$status|$(cat "$dir/err")" "0|"
for field in '"kl":0.0,' '"agreement_teacher":1.0,' '"agreement_free":1.0,' '"differing":0.0,' '"nll_difference_interval":\[null,null\]'; do
    check "a model and itself: $field of both kinds" "$(grep -o "$field" "$dir/out" | wc -l)" 2
done
for field in score_a score_b score_a_interval score_b_interval score_difference_interval peak_rss_bytes mc seed; do
    check "compare: field $field" "$(grep -o "\"$field\":" "$dir/out" | wc -l)" 1
done
: >"$dir/lines.jsonl"
for i in 1 2; do printf '{"q":"who are you?","a":"me"}\n{"text":"Tom had a red ball."}\n' >>"$dir/lines.jsonl"; done
printed() { $unmask eval --no-config --compare $model $model --data "$dir/lines.jsonl" --mc 1 -n 8 "$@" >"$dir/out" 2>"$dir/err"; status=$?; }
printed --limit 1; check "one line of a kind has no interval but of its score" "$status|$(grep -c '95 % interval' "$dir/out")|$(grep -c 'exact match .*95 % interval' "$dir/out")" "0|1|1"
printed --limit 2; check "two lines have" "$status|$(grep -c '95 % interval' "$dir/out")" "0|5"
hostile=$(printf 'ev\033[31mil.gguf'); ln -s "$PWD/$model" "$dir/$hostile"
$unmask eval --no-config --compare "$dir/$hostile" "$dir/$hostile" --data "$dir/lines.jsonl" --limit 1 --mc 1 -n 8 >"$dir/out" 2>"$dir/err"
check "names of models as a terminal may see them" "$?|$(grep -c "^[AB]  $dir/ev.x1b.31mil.gguf, .* MiB of weights$" "$dir/out")" "0|2"
$unmask quantize -q $model "$dir/f32.gguf" f32
pair "$dir/f32.gguf" $model
check "rounding of activations shows, and is small" "$(value stories kl | awk '{ print ($1 > 0 && $1 < 0.01) }')" 1
check "all masks of four levels" "$(value stories rows | awk '{ print ($1 > 100) }')" 1
first=$(sed 's/"seconds":[^,}]*//g; s/"peak_rss_bytes":[0-9]*//' "$dir/out")
pair "$dir/f32.gguf" $model -t 1
check "compare: the same figures on one thread" "$(sed 's/"seconds":[^,}]*//g; s/"peak_rss_bytes":[0-9]*//' "$dir/out")" "$first"
compare --compare $model;                                 check "only one model" "$status|$(grep -c 'E-CLI-005' "$dir/err")" "2|1"
compare --compare $model $model -m $model;                check "a third model" "$status|$(grep -c '(--compare, --model): found both.*E-CLI-010' "$dir/err")" "2|1"
pair $model "$dir/none.gguf";                             check "a missing model" "$status|$(grep -c 'E-FILE-001' "$dir/err")" "4|1"
TMPDIR=$dir/none pair $model "$dir/none.gguf";            check "... is missed before anything else is done" "$status|$(grep -c 'none.gguf.*E-FILE-001' "$dir/err")" "4|1"
printf '{"text":"Tom had a red ball."}\n' >"$dir/text.jsonl"
pair $model tests/data/checkpoints/llada-tiny --data "$dir/text.jsonl"; check "another vocabulary" "$status|$(grep -c 'E-CLI-013' "$dir/err")" "2|1"
printf '{"text":""}\n' >"$dir/empty.jsonl"
pair $model $model --data "$dir/empty.jsonl";             check "a line is named with its file" "$status|$(grep -c "$dir/empty.jsonl, line 1: .*an empty text" "$dir/err")" "2|1"
mkdir "$dir/short"; cp tests/data/checkpoints/llada-tiny/*.safetensors tests/data/checkpoints/llada-tiny/t*.json "$dir/short"
sed 's/"max_sequence_length": 256/"max_sequence_length": 8/' tests/data/checkpoints/llada-tiny/config.json >"$dir/short/config.json"
pair "$dir/short" "$dir/short";                           check "... a question with that of the questions" "$status|$(grep -c 'assistant.jsonl, line 1: .*E-GEN-002' "$dir/err")" "6|1"
mkdir "$dir/no-q"; cp tests/data/checkpoints/llada-tiny/* "$dir/no-q"
sed 's/"Q": 81,/"QQQ": 81,/' tests/data/checkpoints/llada-tiny/tokenizer.json >"$dir/no-q/tokenizer.json"
printf '{"q":"a","a":"Q"}\n' >"$dir/q.jsonl"
pair "$dir/no-q" "$dir/no-q" --data "$dir/q.jsonl";       check "... also where the error names another file" \
    "$status|$(grep -c 'q.jsonl, line 1: .*no-q: .*E-TOK-011' "$dir/err")" "3|1"
evil=$(printf 'ev\033[31mil\377.jsonl'); printf '{"q":"Q","a":"a"}\n' >"$dir/$evil"
compare --exact-match "$dir/$evil" -m "$dir/no-q";        check "... as JSON whatever the name" \
    "$status|$(grep -c '"file":"[^"]*ev..x1b.31mil..xff.jsonl, line 1' "$dir/err")" "3|1"
# Weights that are finite and what they compute is not: no line is to blame.
$unmask quantize -q tests/data/checkpoints/llada-tiny "$dir/damaged.gguf" f32
at=$($unmask inspect "$dir/damaged.gguf" --tensors --json | sed 's/.*"blk.0.ffn_gate.weight","type":"F32","shape":\[[0-9,]*\],"offset":\([0-9]*\).*/\1/')
for i in 1 2 3 4 5 6 7 8 9 10; do printf '\377\377\177\177\377\377\177\177'; done | dd of="$dir/damaged.gguf" bs=1 seek="$at" conv=notrunc 2>"$dir/err"
printf '{"q":"a","a":"b"}\n' >"$dir/ab.jsonl"; printf '{"prompt":"a","answer":"b"}\n' >"$dir/lk.jsonl"
compare --likelihood "$dir/lk.jsonl" -m "$dir/damaged.gguf";  check "a damaged model, not the line" "$status|$(grep -c 'E-ARCH-010' "$dir/err")|$(grep -c 'lk.jsonl' "$dir/err")" "3|1|0"
compare --exact-match "$dir/ab.jsonl" -m "$dir/damaged.gguf"; check "... of questions" "$status|$(grep -c 'E-ARCH-010' "$dir/err")|$(grep -c 'ab.jsonl' "$dir/err")" "3|1|0"
pair "$dir/damaged.gguf" tests/data/checkpoints/llada-tiny --data "$dir/ab.jsonl"
check "... of two, and which" "$status|$(grep -c 'damaged.gguf.*E-ARCH-010' "$dir/err")|$(grep -c 'ab.jsonl' "$dir/err")" "3|1|0"
TMPDIR=$dir/none pair $model $model;                      check "no place for what waits" "$status|$(grep -c 'E-FILE-006' "$dir/err")" "4|1"
compare --exact-match "$dir/bad.jsonl" --against exact;   check "two measures" "$status|$(grep -c 'E-CLI-010' "$dir/err")" "2|1"
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
