#!/bin/sh
# unmask tokenize and detokenize as commands: what they print, where ids and text may come from, exit codes.
unmask="$RUNNER ${UNMASK:-build/unmask}"
folder=tests/data/checkpoints/llada-gqa
passed=0; failed=0
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT

check() { if [ "$2" = "$3" ]; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "$1: \"$2\", need \"$3\""; fi; }
# fails NAME STATUS PATTERN COMMAND...: it ends so, prints nothing, and its error matches
fails() {
    name=$1 want=$2 pattern=$3; shift 3
    $unmask "$@" >"$dir/out" 2>"$dir/err" </dev/null; status=$?
    if [ "$status" -eq "$want" ] && [ ! -s "$dir/out" ] && grep -q -- "$pattern" "$dir/err"; then passed=$((passed + 1)); return; fi
    failed=$((failed + 1))
    echo "$name: status $status, need $want and \"$pattern\":"; cat "$dir/out" "$dir/err"
}
tokenize() { $unmask tokenize --no-config "$@" 2>&1; }
detokenize() { $unmask detokenize --no-config "$@" 2>&1; }

check "an argument" "$(tokenize -m $folder 'Hello world')" "72 101 291 111 467 325"
check "a pipe" "$(printf 'Hello world' | tokenize -m $folder)" "72 101 291 111 467 325"
printf 'Hello world' >"$dir/hello"
check "a file" "$(tokenize -m $folder "@$dir/hello")" "72 101 291 111 467 325"
for text in '@' '@foo' '@@foo' '@alice turn on the light'; do
    check "text that begins with @ ($text)" "$(detokenize -m $folder $(tokenize -m $folder "@$text"))" "$text"
done
check "no text" "$(tokenize -m $folder '')" ""
check "json" "$(tokenize -m $folder --json 'Hello world')" '{"ids":[72,101,291,111,467,325]}'
check "special tokens" "$(tokenize -m $folder --special 'Hi<|eot_id|>')" "72 105 508"
check "special tokens are text" "$(tokenize -m $folder '<|eot_id|>' | grep -cw 508)" "0"
printf '{"text":"Hello world"}\n\n{"text":"","more":1}\n{"text":"\\u0041"}' >"$dir/lines"
check "lines" "$(tokenize -m $folder --jsonl "$dir/lines" | tr '\n' ';')" '{"ids":[72,101,291,111,467,325]};{"ids":[]};{"ids":[65]};'
printf '{"text":"a\\u0000b"}\n' >"$dir/nul"
check "NUL in a line" "$(tokenize -m $folder --jsonl "$dir/nul" | sed 's/[^0-9,]//g' | xargs $unmask detokenize --no-config -m $folder --json)" '{"text":"a\u0000b"}'
{ printf '\357\273\277'; cat "$dir/lines"; } >"$dir/marked"
check "lines behind a byte order mark" "$(tokenize -m $folder --jsonl "$dir/marked")" "$(tokenize -m $folder --jsonl "$dir/lines")"
check "lines of a pipe" "$(tokenize -m $folder --jsonl - <"$dir/lines" | tail -n 1)" '{"ids":[65]}'

mkdir "$dir/bare" && cp $folder/tokenizer.json "$dir/bare"
check "a folder with nothing but a tokenizer" "$(tokenize -m "$dir/bare" 'Hello world')" "72 101 291 111 467 325"
$unmask quantize $folder "$dir/m.gguf" q8_0 -q
check "a GGUF file" "$(tokenize -m "$dir/m.gguf" --special 'Hello world<|mdm_mask|>')" "72 101 291 111 467 325 500"
check "NUL between ids" "$(printf '72 \0 101' | $unmask detokenize --no-config -m $folder 2>&1 | grep -c 'a NUL byte.*E-CLI-008')" 1
check "text of a GGUF file" "$(detokenize -m "$dir/m.gguf" 72 101 291 111 467 325)" "Hello world"

check "ids with blanks" "$(detokenize -m $folder 72 101 291 111)" "Hello"
check "ids with commas" "$(detokenize -m $folder 72,101,291 111)" "Hello"
check "ids of a pipe" "$(tokenize -m $folder 'x  y' | detokenize -m $folder)" "x  y"
check "control tokens are left out" "$(detokenize -m $folder 480 72 508)" "H"
check "control tokens are written" "$(detokenize -m $folder --special 480 72 508)" "<|startoftext|>H<|eot_id|>"
check "json text" "$(detokenize -m $folder --json 72 230)" '{"text":"H'"$(printf '\357\277\275')"'"}'

fails "two texts" 2 "quotes.*E-CLI-006" tokenize -m $folder a b
fails "text beside lines" 2 "E-CLI-006" tokenize -m $folder --jsonl "$dir/lines" a
fails "text that names no file" 4 'alice turn on the light: cannot open.*An argument that begins with @ names a file; write @@ for the character itself' \
      tokenize -m $folder '@alice turn on the light'
fails "text that is not UTF-8" 2 "byte 1.*E-CLI-008" tokenize -m $folder "$(printf 'a\377')"
fails "no such model" 4 "E-FILE-001" tokenize -m "$dir/none" a
fails "a folder without tokenizer" 3 "tokenizer.json.*E-TOK-001" tokenize -m tests/data a
fails "no such lines" 4 "E-FILE-001" tokenize -m $folder --jsonl "$dir/none"
fails "an id beyond the vocabulary" 2 "found id 512, need 0 to 511.*E-TOK-014" detokenize -m $folder 72 512
fails "an id that is none" 2 "E-CLI-004" detokenize -m $folder 72 x
printf '{"txt":"a"}\n' >"$dir/lines"
mkdir "$dir/small"
echo '{"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"use_regex":true},"decoder":{"type":"ByteLevel"},
       "model":{"type":"BPE","vocab":{"a":0},"merges":[]}}' >"$dir/small/tokenizer.json"
printf '\n{"text":"ab"}\n' >"$dir/spelt"
fails "a line that the vocabulary cannot spell" 3 "$dir/spelt, line 2: $dir/small: .*byte 0x62.*E-TOK-011" \
      tokenize -m "$dir/small" --jsonl "$dir/spelt"
fails "a line without text" 2 "line 1.*\"text\".*E-CLI-012" tokenize -m $folder --jsonl "$dir/lines"

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
