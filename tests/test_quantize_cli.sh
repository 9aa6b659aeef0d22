#!/bin/sh
# unmask quantize as a command: what it prints and where, exit codes, what it leaves behind.
unmask="$RUNNER ${UNMASK:-build/unmask}"
from=tests/data/checkpoints/llada-tied
passed=0; failed=0
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT

# expect NAME STATUS PATTERN: the last run ended so, and its standard error matches the pattern
expect() {
    if [ "$status" -eq "$2" ] && grep -q -- "$3" "$dir/err"; then passed=$((passed + 1)); return; fi
    failed=$((failed + 1))
    echo "$1: status $status, need $2 and \"$3\":"; cat "$dir/err"
}
quantize() { $unmask quantize "$@" >"$dir/out" 2>"$dir/err"; status=$?; }
check() { if [ "$2" = "$3" ]; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "$1: \"$2\", need \"$3\""; fi; }

quantize "$from" "$dir/a.gguf"
expect "plan line" 0 "^$from: .* in 26 tensors -> $dir/a.gguf: .* as q4_0 (.* free)$"
expect "last line" 0 "written and verified in .* s; relative error of the weights 0.08"
check "standard output is empty" "$(cat "$dir/out")" ""
hostile=$dir/$(printf 'ev\033[31mil'); shown=$dir/'ev\\x1b\[31mil'
cp -r "$from" "$hostile"; printf 'format: q4_0\n' >"$hostile.yaml"; seq 1 300 >"$hostile.txt"
quantize "$hostile" "$hostile.gguf" "$hostile.yaml" --calibrate "$hostile.txt"
expect "names are shown without what a terminal would act on" 0 "^$shown: .* -> $shown.gguf: .* as ev.x1b.31mil (.* free)$"
expect "... the text's" 0 "^calibrated on $shown.txt, "
expect "... at the end" 0 "^$shown.gguf: .* written and verified"
check "... and nothing else" "$(LC_ALL=C grep -c "$(printf '\033')" "$dir/err")" 0
bytes=$dir/$(printf 'no\377text.txt'); cp "$hostile.txt" "$bytes"
quantize "$from" "$dir/bytes.gguf" --calibrate "$bytes" --save-imatrix "$dir/bytes.i.gguf"
check "a name that is not UTF-8 does not get into metadata" "$status $(LC_ALL=C grep -ac "$(printf 'no\377text')" "$dir/bytes.gguf" "$dir/bytes.i.gguf" \
      | sed 's/.*://' | paste -sd+)" "0 0+0"
quantize "$hostile" "$hostile.gguf" --split-size 40k --force
expect "... of several files" 0 "^$shown-00001-of-0000[2-9].gguf and [1-8] more: "
rm -r "$hostile"*
quantize "$from" "$dir/a.gguf" q8_0
expect "an existing file" 2 "exists already.*--force.*E-FILE-008"
quantize "$from" "$dir/b.gguf" Q4_0 -t 1 -q
check "quiet" "$(cat "$dir/err")" ""
check "the same bytes on one thread" "$(cksum <"$dir/b.gguf")" "$(cksum <"$dir/a.gguf")"
quantize "$from" "$dir/a.gguf" q4_0 --force --json
check "json" "$(sed 's/.*"format":"\([a-z0-9_]*\)".*"tensors":\([0-9]*\).*/\1 \2/' "$dir/out")" "q4_0 26"
check "json keeps standard error empty" "$(cat "$dir/err")" ""
quantize "$from" "$dir/c.gguf" f32 --set general.license=apache-2.0 --set "general.name=Tiny LLaDA"
check "metadata" "$(tr -d '\000' <"$dir/c.gguf" | LC_ALL=C grep -ao 'apache-2.0\|Tiny LLaDA' | tr '\n' ' ')" "apache-2.0 Tiny LLaDA "

quantize "$from" "$dir/q8.gguf" q8_0 -q
quantize "$dir/q8.gguf" "$dir/packed.gguf" --layout packed
expect "packing keeps the type" 0 "as q8_0, unchanged "
check "a packed file says so" "$($unmask inspect "$dir/packed.gguf" --json | grep -o '"layout":"packed"' | wc -l | tr -d " ")" 15
quantize "$dir/packed.gguf" "$dir/unpacked.gguf" --layout standard -q
check "and back" "$(cksum <"$dir/unpacked.gguf")" "$(cksum <"$dir/q8.gguf")"
quantize "$from" "$dir/x.gguf" --layout tiles;              expect "an unknown layout" 2 "standard|packed.*E-CLI-"
quantize;                                                   expect "no arguments" 2 "E-CLI-005"
quantize model.gguf;                                        expect "one argument" 2 "found one argument"
for type in q8_0 Q4_K_M other.yaml; do quantize "$from" "$type" --dry-run; expect "only the type $type" 2 "missing argument (OUT): found $type, which is a type, need IN and OUT.*E-CLI-005"; done
quantize "$from" "$dir/x.gguf" q8_0 q4_0;                   expect "an argument too many" 2 "E-CLI-006"
quantize "$from" "$dir/x.gguf" Q4_K_X;                      expect "an unknown format" 2 "found Q4_K_X.*q4_0.*E-QNT-007"
quantize "$from" "$dir/x.gguf" --set llada.block_count=9;   expect "metadata of ours" 2 "E-QNT-006"
quantize "$from" "$dir/no/x.gguf";                          expect "a folder that is missing" 4 "E-FILE-0"
quantize "$dir/none" "$dir/x.gguf";                         expect "no input" 4 "E-FILE-001"
quantize "$dir/a.gguf" "$dir/x.gguf" q8_0;                  expect "rounding twice" 2 "E-QNT-002"
quantize "$dir/a.gguf" "$dir/x.gguf" f16;                   expect "... to 16 bits" 2 "need weights in f32, f16 or bf16. .*E-QNT-002"
quantize "$dir/a.gguf" "$dir/r.gguf" q8_0 --requantize;     expect "rounding twice, asked for" 0 "matrices are rounded a second time"
quantize "$from" "$dir/x.gguf" --keep ffn_down;             expect "a rule without a format" 2 "found no =.*E-QNT-008"
quantize "$from" "$dir/bases.gguf" --set general.base_model.0.name=A --set general.base_model.11.name=B
check "how many base models" "$($unmask inspect "$dir/bases.gguf" --json | grep -o '"general.base_model.count":[0-9]*')" '"general.base_model.count":12'
quantize "$dir/bases.gguf" "$dir/more.gguf" q8_0 --requantize --set general.base_model.12.name=C
check "one more" "$($unmask inspect "$dir/more.gguf" --json | grep -o '"general.base_model.count":[0-9]*')" '"general.base_model.count":13'
quantize "$dir/more.gguf" "$dir/bases.gguf" q8_0 --requantize --force --set general.base_model.1.name=D
check "none more" "$($unmask inspect "$dir/bases.gguf" --json | grep -o '"general.base_model.count":[0-9]*')" '"general.base_model.count":13'
quantize "$from" "$dir/x.gguf" --keep ffn_down=q9;          expect "a rule of an unknown format" 2 "found q9, need REGEX=FORMAT.*q8_0.*E-QNT-008"
quantize "$from" "$dir/x.gguf" --keep nothing=q8_0;         expect "a rule that fits nothing" 2 "no matrix of that name.*E-QNT-008"
printf 'format: q4_0\nfile_type: 1023\nrules:\n  - ffn_down=q8_0\nmore_bits: [attn_v=q8_0]\n' >"$dir/mine.yaml"
quantize "$from" "$dir/m.gguf" "$dir/mine.yaml" --keep 'blk\.0\.ffn_down=f16' --report "$dir/m.json"
expect "a recipe: the plan" 0 "^11 tensors as f32, 1 tensors as f16, 2 tensors as q8_0, 12 tensors as q4_0$"
expect "a recipe: the name" 0 "^name by GGUF's rule: llada-tied-.*-v1.0-MINE.gguf$"
check "a recipe: the report" "$(grep -c '"why": "rule"' "$dir/m.json")" "3"
quantize "$dir/m.gguf" "$dir/m2.gguf" --layout standard
expect "a layout alone keeps the formats" 0 " as q4_0, unchanged ("
check "... all of them, and the type" "$(cksum <"$dir/m2.gguf")" "$(cksum <"$dir/m.gguf")"
quantize "$dir/m.gguf" "$dir/same.gguf" "$dir/mine.yaml"; expect "the type of the file, asked for" 0 "^11 tensors as f32, 3 tensors as q8_0, 12 tensors as q4_0$"
quantize "$dir/same.gguf" "$dir/m4.gguf" "$dir/mine.yaml" -q
check "a file of the type is copied" "$(cksum <"$dir/m4.gguf")" "$(cksum <"$dir/same.gguf")"
for line in 'format: q9' 'rules: [ffn_down]' 'rules: ffn' 'file_type: x' 'other: 1' 'file_type: 3' \
    'format: [q4_0, q8_0]' 'format: q4_0\nfile_type: [3]'; do
    printf "$line\n" >"$dir/bad.yaml"
    quantize "$from" "$dir/x.gguf" "$dir/bad.yaml";         expect "a recipe that says $line" 2 "bad.yaml: .*E-QNT-00[89]"
done
quantize "$from" "$dir/x.gguf" --save-imatrix "$dir/i.gguf"; expect "importance of nothing" 2 "--calibrate self.*E-CLI-005"
quantize "$from" "$dir/x.gguf" --imatrix "$dir/a.gguf";     expect "a model as importance file" 3 "need imatrix.*E-QNT-010"
quantize "$from" "$dir/x.gguf" --calibrate "$dir/none.txt"; expect "a text that is missing" 4 "E-FILE-001"
: >"$dir/empty.txt"; echo '{"q":"a","a":"b"}' >"$dir/lines.jsonl"; echo '{"text":"once upon a time"}' >>"$dir/lines.jsonl"
seq 1 300 >"$dir/text.txt"; echo '{"x":1}' >"$dir/bad.jsonl"
quantize "$from" "$dir/x.gguf" --calibrate "$dir/empty.txt"; expect "a text without text" 2 "empty.txt: no text to calibrate on.*E-QNT-011"
{ printf '\357\273\277'; cat "$dir/bad.jsonl"; } >"$dir/marked.jsonl"
quantize "$from" "$dir/x.gguf" --calibrate "$dir/marked.jsonl"; expect "... behind a byte order mark" 2 "marked.jsonl.*line 1.*E-CLI-0"
quantize "$from" "$dir/x.gguf" --calibrate "$dir/bad.jsonl"; expect "lines of something else" 2 "bad.jsonl.*line 1.*E-CLI-0"
echo '{"text":""}' >"$dir/nothing.jsonl"
quantize "$from" "$dir/x.gguf" --calibrate "$dir/nothing.jsonl"; expect "lines without text" 2 "nothing.jsonl: no text to calibrate on.*E-QNT-011"
mkdir "$dir/short"; cp tests/data/checkpoints/llada-tiny/* "$dir/short"; chmod u+w "$dir/short/"*
sed 's/"max_sequence_length": 256/"max_sequence_length": 1/' tests/data/checkpoints/llada-tiny/config.json >"$dir/short/config.json"
for text in "$dir/text.txt" "$dir/lines.jsonl"; do
    quantize "$dir/short" "$dir/x.gguf" --calibrate "$text"; expect "a context of one position, ${text##*/}" 2 "short: the context is too short for a text to calibrate on: found 1 position.*E-QNT-011"
done
quantize "$from" "$dir/endless.gguf" f32 -q
LC_ALL=C sed -i 's/tokenizer.ggml.eos_token_id/tokenizer.ggml.eos_token_no/' "$dir/endless.gguf"
quantize "$dir/endless.gguf" "$dir/ke.gguf" --calibrate "$dir/lines.jsonl"
expect "no end of text: answers are filled up with the end of the turn" 0 "^calibrated on"
for text in "$dir/text.txt" "$dir/lines.jsonl" self; do
    quantize "$from" "$dir/k.gguf" --force --calibrate "$text" --calibrate-tokens 600 --save-imatrix "$dir/i.gguf" --report "$dir/k.json"
    expect "calibrated on ${text##*/}" 0 "^error of the 14 calibrated matrices' outputs: 0.0[0-9]*; by plain rounding it would be 0.0[0-9]*$"
    check "methods of ${text##*/}" "$(grep -c '"method": "feedback"' "$dir/k.json") $(grep -c '"method": "search"' "$dir/k.json")" "14 1"
    check "its name is in the metadata" "$(tr -d '\000' <"$dir/k.gguf" | LC_ALL=C grep -aoc "${text##*/}")" "1"
done
quantize "$from" "$dir/kc.gguf" --calibrate self --calibrate-tokens 256 --card
expect "calibration in the plan" 0 "^calibrated on text that the model writes itself, at most 256 tokens of it$"
quantize "$from" "$dir/kr.gguf" --search
expect "random ids in the plan" 0 "^calibrated on 4096 random ids, which go through the model$"
quantize "$from" "$dir/kr8.gguf" q8_0 --search
check "no random ids where nothing is searched" "$status $(grep -c 'random ids' "$dir/err")" "0 0"
expect "... is said" 0 "^no matrix here is rounded by what --search finds$"
quantize "$from" "$dir/kf.gguf" f16 --calibrate self --calibrate-tokens 256
expect "what rounds each value alone is not calibrated" 0 "^no matrix here is rounded by what --calibrate reads$"
check "... and not said to be" "$(grep -c '^calibrated on' "$dir/err")" "0"
check "calibration on the card" "$(grep -c '^Rounding: by feedback on self.$' "$dir/kc.md")" "1"
quantize "$dir/kc.gguf" "$dir/x.gguf" --dry-run --report "$dir/m.json"; expect "a report that exists, before a dry run" 2 "m.json.*E-FILE-008"
check "... which leaves nothing" "$(ls -A "$dir" | grep -c 'x.gguf')" 0
LC_ALL=C sed 's/blk\./blx./g' "$dir/i.gguf" >"$dir/other.gguf"
quantize "$from" "$dir/x.gguf" --imatrix "$dir/other.gguf"; expect "importance of another model" 3 "(other.gguf).*no matrix of this model.*E-QNT-010"
quantize "$from" "$dir/m3.gguf" --imatrix "$dir/i.gguf" --report "$dir/m3.json"; expect "how many matrices it names" 0 "^importance for 14 of 15 matrices$"
check "methods by importance" "$status $(grep -c '"method": "importance"' "$dir/m3.json") $(grep -c '"method": "search"' "$dir/m3.json")" "0 14 1"
quantize "$from" "$dir/x.gguf" --imatrix "$dir/i.gguf" --calibrate self; expect "two kinds of importance" 2 "(--imatrix, --calibrate).*E-CLI-010"
quantize "$from" "$dir/x.gguf" --imatrix "$dir/i.gguf" --search;         expect "importance and random ids" 2 "(--imatrix, --search).*E-CLI-010"
quantize "$from" "$dir/x.gguf" --calibrate self --search;                expect "texts and random ids" 2 "(--calibrate, --search).*E-CLI-010"
quantize "$from" "$dir/x.gguf" --calibrate-tokens 600;                   expect "tokens of no text" 2 "--calibrate-tokens.*--calibrate self.*E-CLI-005"
ln -s "$dir/c.gguf" "$dir/link.gguf"
quantize "$dir/c.gguf" "$dir/x2.gguf" q8_0 --report "$dir/link.gguf" --force;   expect "the report is the input" 2 "link.gguf.*--report.*E-QNT-001"
$unmask forward -m "$dir/c.gguf" --ids 1,2 --logits "$dir/c.gguf" --force 2>"$dir/err"; status=$?
expect "the logits are the model" 2 "--logits.*E-QNT-001"
$unmask run -m "$dir/c.gguf" --prompt-ids 1,2 --trace "$dir/c.gguf" --force 2>"$dir/err"; status=$?
expect "the trace is the model" 2 "--trace.*E-QNT-001"
quantize "$dir/c.gguf" "$dir/c.gguf" q8_0 --force;          expect "the output is the input" 2 "E-QNT-001"
# Any file of the model is spared: of a folder also those that are not opened here, of a split model every part.
mkdir "$dir/spared"; cp "$from"/* "$dir/spared"; ln -s config.json "$dir/spared/link"; seq 1 300 >"$dir/spared/text.md"
quantize "$from" "$dir/spared/k.gguf" f32 --split-size 300k -q
before=$(cd "$dir/spared" && cksum ./*)
for file in model.safetensors config.json tokenizer.json tokenizer_config.json link; do
    $unmask run -m "$dir/spared" --prompt-ids 3 -n 2 --trace "$dir/spared/$file" --force 2>"$dir/err"; status=$?
    expect "the trace is $file of the model" 2 "$file: .*--trace.*a file of the model.*E-QNT-001"
    quantize "$dir/spared" "$dir/spared/$file" q8_0 --force;    expect "the output is $file of the input" 2 "$file: .*E-QNT-001"
done
$unmask forward -m "$dir/spared/k-00001-of-00002.gguf" --ids 1,2 --hidden "$dir/spared/k-00002-of-00002.gguf" --force 2>"$dir/err"; status=$?
expect "the hidden states are another part of the model" 2 "--hidden.*E-QNT-001"
for flag in --report --save-imatrix; do
    quantize "$dir/spared" "$dir/x.gguf" --calibrate "$dir/spared/text.md" $flag "$dir/spared/text.md" --force
    expect "$flag is the text" 2 "text.md: .*$flag.*the text of --calibrate.*E-QNT-001"
done
quantize "$dir/spared" "$dir/spared/text.gguf" --calibrate "$dir/spared/text.md" --card --force; expect "the card is the text" 2 "--card.*E-QNT-001"
quantize "$from" "$dir/i.gguf" --imatrix "$dir/i.gguf" --force; expect "the output is the importance" 2 "(OUT).*the file of --imatrix.*E-QNT-001"
quantize "$from" "$dir/mine.yaml" "$dir/mine.yaml" --force; expect "the output is the recipe" 2 "the recipe.*E-QNT-001"
quantize "$from" "$dir/x.gguf" --report "$dir/x.gguf" --force;  expect "the report is the output" 2 "another output of this run.*E-FILE-007"
check "all of them are what they were" "$(cd "$dir/spared" && cksum ./*)" "$before"
echo '[]' >"$dir/spared/report.json"
quantize "$dir/spared" "$dir/x.gguf" --report "$dir/spared/report.json" --force -q; check "a file of ours in its folder is not the model's" "$status" 0
rm "$dir/x.gguf"
(ulimit -f 100; quantize "$from" "$dir/x.gguf" f32; echo "$status" >"$dir/status")
status=$(cat "$dir/status");                                expect "a disk that is full" 4 "E-FILE-006"
check "nothing is left" "$(ls -A "$dir" | grep -c 'x.gguf')" "0"

rm -f "$dir"/*.gguf "$dir"/*.json
quantize "$from" "$dir/s.gguf" q4_0 --dry-run
expect "dry run: the name" 0 "^name by GGUF's rule: llada-tied-.*-v1.0-Q4_0.gguf$"
expect "dry run: the memory" 0 "of memory for the work; nothing is written"
check "dry run: no file" "$(ls -A "$dir" | grep -c gguf)" "0"
quantize "$from" "$dir/s.gguf" q4_0 --split-size 40k --card --report "$dir/s.json" --set general.license=mit \
    --set general.base_model.0.repo_url=https://example.org/GSAI-ML/LLaDA-8B-Instruct
expect "split: the plan" 0 "^[0-9]* files of at most 39.1 KiB of tensors each$"
expect "split: the end" 0 "^$dir/s-00001-of-0000[2-9].gguf and [1-8] more: .* written and verified"
expect "the worst tensor" 0 "(worst tensor: blk.*, 0.[0-9]*)$"
check "split: the files" "$(ls "$dir" | grep -c 's-0000[1-9]-of-0000[1-9].gguf')" "$(sed -n 's/.*"files": \([0-9]*\),/\1/p' "$dir/s.json")"
check "split: the first of them in the report" "$(ls "$(sed -n 's/^ "output": "\(.*\)",$/\1/p' "$dir/s.json")")" "$(ls "$dir"/s-00001-of-*)"
check "split: all of them" "$(sed -n '/"outputs": \[/,/]/s/^ *"\(\/.*\)",*$/\1/p' "$dir/s.json")" "$(ls "$dir"/s-0000*)"
mkdir "$dir/away"
quantize "$from" "$dir/l.gguf" q4_0 --split-size 40k -q; first=$(ls "$dir"/l-00001-of-*)
mv "$first" "$dir/away/l.gguf"; ln -s away/l.gguf "$first"
quantize "$from" "$dir/l.gguf" q4_0 --split-size 40k --force -q
check "split: a link to the first stays, and leads to the new one" "$status $([ -L "$first" ] && echo link) $($unmask verify --no-config "$first" | grep -c good)" "0 link 1"
rm -r "$dir/away" "$dir"/l-*
quantize "$from" "$dir/one.gguf" --json
check "one file: a list of one" "$(grep -c "\"output\":\"$dir/one.gguf\",\"outputs\":\[\"$dir/one.gguf\"\]," "$dir/out")" "1"
check "report" "$(grep -c '"worst_block_rmse"' "$dir/s.json")" "26"
check "card: front matter" "$(sed -n '/^base_model\|^license\|^---\|^- Q4/p' "$dir/s.md" | tr '\n' ' ')" \
    '--- base_model: "GSAI-ML/LLaDA-8B-Instruct" base_model_relation: quantized license: "mit" - Q4_0 --- '
check "card: the model's name" "$(grep -c '^# llada-tied$' "$dir/s.md")" "1"
quantize "$from" "$dir/t.gguf" --report "$dir/s.json";      expect "a report that exists" 2 "s.json: exists already"
cp "$dir/s.md" "$dir/t.md"
quantize "$from" "$dir/t.gguf" --card;                      expect "a card that exists" 2 "t.md: exists already"
check "neither starts the work" "$(ls "$dir" | grep -c 't.gguf')" "0"
quantize "$from" "$dir/u.gguf" --split-size 0.04MB --dry-run; expect "a split size with a point" 0 "^[0-9]* files of at most 39.1 KiB"
for size in 0 x 5X 50% -1 18446744073709551616 99999999T; do
    quantize "$from" "$dir/t.gguf" --split-size "$size";    expect "a split size of $size" 2 "split-size.*E-CLI-0"
done
quantize "$from" "$dir/a.gguf"; quantize "$from" "$dir/c.gguf" f32

verify() { $unmask verify --no-config "$@" >"$dir/out" 2>"$dir/err"; status=$?; }
verify "$dir/c.gguf"
check "a good file" "$status $(grep -c 'c.gguf: good: .* SHA-256 of every tensor as written' "$dir/out")" "0 1"
verify "$from"
check "a folder has no checksums" "$status $(grep -c 'good: .*no checksums' "$dir/out")" "0 1"
verify "$dir/c.gguf" --json
check "verify in json" "$status $(sed 's/.*"ok":\([a-z]*\),.*"checksum":"\([a-z]*\)","nonfinite":\([0-9]*\)}]}$/\1 \2 \3/' "$dir/out")" "0 true same 0"
cp "$dir/c.gguf" "$dir/e.gguf"; printf xyz >>"$dir/e.gguf"
verify "$dir/e.gguf"
check "bytes of no tensor" "$status $(grep -c '^bytes that belong to no tensor: 3' "$dir/out")" "0 1"
verify "$dir/e.gguf" --strict;                              expect "bytes of no tensor, --strict" 8 "found 3 bytes.*E-VFY-004"
verify "$dir/c.gguf" --strict
check "a whole file, --strict" "$status $(grep -c 'good' "$dir/out") $(grep -c 'no tensor' "$dir/out")" "0 1 0"
printf x | dd of="$dir/c.gguf" bs=1 seek=$(($(wc -c <"$dir/c.gguf") - 300)) conv=notrunc 2>/dev/null
verify "$dir/c.gguf";                                       expect "one byte is another" 8 "another SHA-256.*E-VFY-001"
verify "$dir/c.gguf" --json
check "damage in json" "$status $(grep -c '"ok":false.*"checksum":"different"' "$dir/out")" "8 1"
quantize "$dir/a.gguf" "$dir/$(printf 'b\377').gguf" f32 --json
check "a path that is not UTF-8, in json" "$status $(grep -c "b$(printf '\357\277\275').gguf\"," "$dir/out")" "0 1"
head -c 3000 "$dir/c.gguf" >"$dir/d.gguf"
verify "$dir/d.gguf";                                       expect "a file cut short" 3 "E-GGUF-003"
verify "$dir/none.gguf";                                    expect "nothing to verify" 4 "E-FILE-001"
verify -m "$dir/a.gguf" "$dir/a.gguf";                      expect "two names" 2 "E-CLI-010"

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
