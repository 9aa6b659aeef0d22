#!/bin/sh
# unmask bench as a command: models with random weights, what a measurement reports, comparison with earlier ones.
unmask="$RUNNER ${UNMASK:-build/unmask}"
passed=0; failed=0
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT

# expect NAME STATUS PATTERN: the last run ended so, and its standard error matches the pattern ("": is empty)
expect() {
    if [ "$3" ]; then grep -q -- "$3" "$dir/err"; else [ ! -s "$dir/err" ]; fi && [ "$status" -eq "$2" ] && passed=$((passed + 1)) && return
    failed=$((failed + 1))
    echo "$1: status $status, need $2 and \"$3\":"; cat "$dir/err"
}
check() { if [ "$2" = "$3" ]; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "$1: \"$2\", need \"$3\""; fi; }
bench() { $unmask bench "$@" >"$dir/out" 2>"$dir/err"; status=$?; }

for format in q4_0 q4_k q6_k q8_0 f16; do
    bench --make-model demo $format "$dir/$format.gguf"; expect "a model in $format" 0 ""
    $unmask forward -m "$dir/$format.gguf" --ids 3,17,42 >"$dir/out" 2>"$dir/err"; status=$?
    expect "it runs" 0 ""
    check "with finite logits that differ" "$(grep -c 'nan\|inf' "$dir/out") $(cut -c 8- "$dir/out" | sort -u | grep -c .)" "0 3"
done
check "it has a tokenizer" "$($unmask tokenize -m "$dir/q4_0.gguf" 'the' 2>&1 | tr -s ' \n' ' ' | sed 's/ $//')" "256 101"
bench --make-model demo q4_0 "$dir/again.gguf"
check "the same bytes again" "$(cksum <"$dir/again.gguf")" "$(cksum <"$dir/q4_0.gguf")"
bench --make-model demo q4_0 "$dir/again.gguf";             expect "an existing file" 2 "E-FILE-008"
bench --make-model demo q4_0 "$dir/again.gguf" --force;     expect "that may be replaced" 0 ""
bench --make-model demo q4_0 "$dir/again.gguf" --force --json
check "and is told as JSON" "$(cat "$dir/out")" '{"file":"'"$dir/again.gguf"'","bytes":'"$(wc -c <"$dir/again.gguf")"',"shape":"demo","type":"q4_0"}'
bench --make-model 9b q4_0 "$dir/x.gguf";                   expect "an unknown shape" 2 "found 9b, need one of llada-8b, 0.5b, demo"
bench --make-model demo bf16 "$dir/x.gguf";                 expect "a format without a generator" 2 "found bf16.*E-QNT-007"
bench --make-model demo q5_k "$dir/x.gguf";                 expect "an unknown format" 2 "found q5_k.*E-QNT-007"
bench --make-model demo q4_0;                               expect "no output" 2 "E-CLI-005"

bench -m "$dir/q4_0.gguf" --tokens 4,7 --logit-rows 5 -t 2 --json
expect "a measurement" 0 ""
cp "$dir/out" "$dir/before.json"
row='"test": "pass", .*"tokens": 7, "logit_rows": 5, "threads": 2, .*"seconds": [0-9].*"gops": [0-9].*"load_seconds": [0-9].*"peak_rss_bytes": [0-9]'
row=$row'.*"share_by_kernel": {"embed": [0-9]'
check "its fields" "$(tr '{' '\n' <"$dir/out" | tr '\n' '{' | grep -c "$row")" "1"
sum=$(tr '{' '\n' <"$dir/out" | grep '^"embed"' | tr -d '}]' | awk -F '[:,]' '{ for (i = 2; i <= NF; i += 2) sum += $i } END { print sum }')
check "shares are the whole, in both rows" "$(echo "$sum" | awk '{ print ($1 > 1.99 && $1 < 2.01) }')" "1"
sed 's/"gops": [0-9.]*/"gops": 0.001/g' "$dir/before.json" >"$dir/slow.json"
sed 's/"gops": [0-9.]*/"gops": 1e9/g' "$dir/before.json" >"$dir/fast.json"
bench -m "$dir/q4_0.gguf" --tokens 7 --logit-rows 5 -t 2 --baseline "$dir/slow.json"
expect "faster than before" 0 ""
check "the table" "$(grep -c '^| pass |\|^| sync |' "$dir/out")" "2"
bench -m "$dir/q4_0.gguf" --tokens 7 --logit-rows 5 -t 2 --baseline "$dir/fast.json"
expect "slower than before" 8 "E-BEN-001"
bench -m "$dir/q4_0.gguf" --tokens 2 --logit-rows 5 -t 2 --baseline "$dir/fast.json"
expect "a baseline of something else" 2 "E-BEN-002"
$unmask quantize "$dir/q4_0.gguf" "$dir/named.gguf" q4_0 -q --set "general.name=$(printf 'a\033[2Jb')"
bench -m "$dir/named.gguf" --tokens 2 -t 1
check "a name out of a file does not reach the terminal as it is" "$(sed -n 's/^| pass | \([^|]*\) |.*/\1/p' "$dir/out")" 'a\x1b[2Jb'
bench -m "$dir/none.gguf" --baseline "$dir/none.json";      expect "no baseline, before a model is measured" 4 "none.json.*E-FILE-001"
echo '[{"test": "pass", "gops": 1},' >"$dir/damaged.json"; echo '{"gops": 1}' >"$dir/object.json"; echo '[]' >"$dir/empty.json"; echo '[1]' >"$dir/other.json"
bench -m "$dir/none.gguf" --baseline "$dir/damaged.json";   expect "a damaged baseline" 2 "damaged.json: .*(byte 30).*E-BEN-003"
for file in object empty other; do
    bench -m "$dir/none.gguf" --baseline "$dir/$file.json"; expect "a baseline that is none, $file" 2 "$file.json: .*bench --json.*E-BEN-003"
done
many=256,256,256,256,256,256,256,256; many=$many,$many,$many,$many,$many,$many
timeout 30 $unmask bench -m "$dir/q4_0.gguf" --tokens $many,8, >"$dir/out" 2>"$dir/err"; status=$?
expect "a list that ends in a comma, before minutes of measuring" 2 "(--tokens): found no number, need numbers from 1 to 256.*E-CLI-004"
bench -m "$dir/q4_0.gguf" --tokens 3,257;                   expect "more tokens than the context" 2 "found 257, need numbers from 1 to 256"
bench -m "$dir/q4_0.gguf" --tokens ,3;                      expect "no number" 2 "E-CLI-004"
bench -m "$dir/q4_0.gguf" 3;                                expect "an argument too many" 2 "E-CLI-006"
bench -m "$dir/none.gguf";                                  expect "no model" 4 "E-FILE-001"

bench --kernels --tokens 2 -t 1 --json
expect "kernels" 0 ""
row='^"kernel": "gemm_q[468]k*", "format": "q[468]_[0k]", "isa": "[a-z0-9]*", "m": 2, "k": [0-9]*, "n": [0-9]*, "threads": 1, "gops": [0-9].*"peak_gops": [0-9].*"share": [0-9n]'
check "their fields, for four formats and six shapes" "$(tr '{' '\n' <"$dir/out" | grep -c "$row")" "24"
bench --kernels --tokens 0;                                 expect "kernels for no row" 2 "found 0, need numbers from 1 to 4096"
bench --kernels -m "$dir/q4_0.gguf";                        expect "kernels of a model" 2 "--kernels, --model, --make-model.*E-CLI-010"
bench --kernels --make-model demo q4_0 "$dir/x.gguf";       expect "kernels, and a model to make" 2 "E-CLI-010"
bench --kernels --memory 1G;                                expect "a budget for kernels alone" 2 "--kernels, --memory.*E-CLI-010"
bench --make-model demo q4_0 "$dir/x.gguf" --tokens 3;      expect "lengths of a model to make" 2 "--make-model, --tokens.*E-CLI-010"
bench --kernels --isa mmx;                                  expect "kernels of an unknown set" 2 "found mmx"

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
