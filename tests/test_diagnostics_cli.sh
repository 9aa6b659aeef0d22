#!/bin/sh
# unmask inspect, forward and eval as commands: what they print and write, what they refuse, exit codes.
unmask="$RUNNER ${UNMASK:-build/unmask}"
folder=tests/data/checkpoints/llada-gqa
passed=0; failed=0
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
export XDG_CONFIG_HOME="$dir/none"
unset UNMASK_MODEL

ok() { passed=$((passed + 1)); }
bad() { failed=$((failed + 1)); echo "$*"; }
same() { if [ "$2" = "$3" ]; then ok; else bad "$1: \"$2\", need \"$3\""; fi; }
run() { $unmask "$@" >"$dir/out" 2>"$dir/err" </dev/null; status=$?; }
# prints NAME PATTERN COMMAND...: it succeeds in silence and prints a line that matches (an extended regular expression)
prints() {
    name=$1 pattern=$2; shift 2; run "$@"
    if [ $status -eq 0 ] && [ ! -s "$dir/err" ] && grep -Eq -- "$pattern" "$dir/out"; then ok; else bad "$name: status $status, need \"$pattern\":"; cat "$dir/out" "$dir/err"; fi
}
# fails NAME STATUS PATTERN COMMAND...: it ends so, prints nothing, and its one line of error matches
fails() {
    name=$1 want=$2 pattern=$3; shift 3; run "$@"
    if [ $status -eq "$want" ] && [ ! -s "$dir/out" ] && [ "$(wc -l <"$dir/err")" -eq 1 ] && grep -Eq -- "$pattern" "$dir/err"; then ok
    else bad "$name: status $status, need $want and \"$pattern\":"; cat "$dir/out" "$dir/err"; fi
}
$unmask quantize $folder "$dir/m.gguf" q8_0 -q || bad "quantize"

# ---- inspect

prints "a folder" '^Kind +Hugging Face folder \(safetensors\), 30 tensors of ' inspect $folder
for line in 'Formats +F32 +30 tensors, .*32.00 bits' 'Model +llada, 0.20 million parameters' 'Layers +3 of width 64, 4 heads of 16 \(2 for keys and values\), feed-forward 160' \
            'Context +256 tokens, RoPE base 500000, RMSNorm epsilon 1e-05' 'Tokenizer +byte-level BPE \(.*\), 512 ids, 224 merges; chat template: llada' \
            'Vocabulary +512, mask 500, end of text 481, end of turn 508, begin 480' 'Memory +761.8 KiB for the weights' 'Runs +yes'; do
    if grep -Eq "^$line" "$dir/out"; then ok; else bad "inspect: no line \"$line\""; fi
done
prints "a GGUF file by -m" '^Kind +GGUF, 30 tensors of .*, [0-9]+ metadata keys$' inspect -m "$dir/m.gguf"
if grep -Eq '^ +Q8_0 +23 tensors, .*8.50 bits' "$dir/out" && grep -Eq '^Tokenizer +byte-level BPE \(.*\), 512 ids, 224 merges; chat template: llada$' "$dir/out"; then ok
else bad "inspect of a GGUF file"; cat "$dir/out"; fi
prints "its tensors" '^  blk.2.attn_k.weight +Q8_0 +64 x 32 +[0-9]+ +2176$' inspect "$dir/m.gguf" --tensors
prints "tensors of a folder" '^  model.transformer.blocks.0.k_proj.weight +F32 +64 x 32 +[0-9]+ +8192  model.safetensors$' inspect $folder --tensors
model='"architecture":"llada","parameters":195008,"layers":3,"width":64,"heads":4,"heads_kv":2,"head_width":16,"feed_forward":160,"context":256,"vocabulary":512,"mask_id":500,"eos_id":481,"eot_id":508,"bos_id":480,"weights_bytes":'
prints "what the text tells, as JSON" '^\{"file":".*/m.gguf","kind":"gguf","name":"[^"]+","runs":true,"why_not":null,"formats":\[\{"type":"F32","tensors":7,"packed":0,"bytes":1792\},\{"type":"Q8_0","tensors":23,"packed":0,"bytes":[0-9]+\}\],'$model'[0-9]+,"available_bytes":[0-9]+,"unused_tensors":\[\],"spare_bytes":0,"metadata"' inspect "$dir/m.gguf" --json
prints "of a folder, too" '^\{"file":"'$folder'","kind":"folder","name":"llada-gqa","runs":true,"why_not":null,"formats":\[\{"type":"F32","tensors":30,"packed":0,"bytes":780032\}\],'$model'780032,' inspect $folder --json
mkdir "$dir/shards"; cp $folder/config.json "$dir/shards"; shard=$(printf 'a\033[2Jb.safetensors'); cp $folder/model.safetensors "$dir/shards/$shard"
$unmask inspect $folder --json | grep -o '"name":"model[^"]*"' | sed 's/"name"://; s/$/:"a\\u001b[2Jb.safetensors"/' | paste -sd , - | sed 's/.*/{"weight_map":{&}}/' >"$dir/shards/model.safetensors.index.json"
prints "names of files out of an index" '^  model.transformer.blocks.0.k_proj.weight .*  a\\x1b\[2Jb.safetensors$' inspect "$dir/shards" --tensors
prints "metadata as JSON" ',"metadata":\{"general.architecture":"llada",.*"llada.attention.head_count_kv":2,.*"tokenizer.ggml.token_type":\[([0-9],){511}[0-9]\].*\},"tensors":\[\{.*\}\]\}$' inspect "$dir/m.gguf" --json
prints "tensors as JSON" '\{"name":"blk.2.attn_k.weight","type":"Q8_0","shape":\[64,32\],"offset":[0-9]+\}' inspect "$dir/m.gguf" --json
cp "$dir/m.gguf" "$dir/longer.gguf"; printf 123 >>"$dir/longer.gguf"
prints "bytes of no tensor" '^Not used +bytes that belong to no tensor: 3$' inspect "$dir/longer.gguf"
prints "a whole file" '^Runs +yes$' inspect "$dir/m.gguf"
if grep -q '^Not used' "$dir/out"; then bad "nothing of it is unused"; cat "$dir/out"; else ok; fi
run inspect "$dir/m.gguf" --json
# the offset is that of the bytes: the last norm is all that is F32 and last
at=$(sed 's/.*"name":"output_norm.weight","type":"F32","shape":\[64\],"offset":\([0-9]*\)}.*/\1/' "$dir/out")
header=$(od -An -tu8 -N8 $folder/model.safetensors | tr -d ' ')
run inspect $folder --json
from=$(sed 's/.*"name":"model.transformer.ln_f.weight","type":"F32","shape":\[64\],"offset":\([0-9]*\),"file":"model.safetensors"}.*/\1/' "$dir/out")
if [ "$from" -ge $((header + 8)) ] && [ "$(tail -c +$((at + 1)) "$dir/m.gguf" | head -c 256 | cksum)" = "$(tail -c +$((from + 1)) $folder/model.safetensors | head -c 256 | cksum)" ]; then ok
else bad "offsets: $at in the file, $from in the folder"; fi
prints "fields of config.json as JSON" ',"metadata":\{.*"architectures":\["LLaDAModelLM"\],.*"init_cutoff_factor":null' inspect $folder --json
: >"$dir/empty"; mkdir "$dir/bare" && cp $folder/tokenizer.json "$dir/bare"
fails "an empty file" 3 'E-GGUF' inspect "$dir/empty"
fails "a folder without weights" 3 'config.json.*E-ST-001' inspect "$dir/bare"
fails "no file" 4 'E-FILE-001' inspect "$dir/none"
ln -s "$dir/none" "$dir/dangling"
fails "a link to nowhere" 4 'E-FILE-001' inspect "$dir/dangling"
fails "two files" 2 'E-CLI-006' inspect a b
fails "a file twice" 2 'E-CLI-010' inspect "$dir/m.gguf" -m "$dir/m.gguf"
fails "a name that is not UTF-8, as JSON" 4 '^\{"error":\{"id":"E-FILE-001",.*\\\\xff\\\\x1b\[1m' inspect --json "$dir/$(printf '\377\033[1m')"
sed 's/LLaDAModelLM/OtherModel/' $folder/config.json >"$dir/bare/config.json"; cp $folder/model.safetensors "$dir/bare"
prints "an architecture that does not run" '^Runs +no: .*E-ARCH-001' inspect "$dir/bare"
prints "as JSON, and why" '"name":"bare","runs":false,"why_not":".*E-ARCH-001\]","formats":\[[^]]*\],"spare_bytes":0,"metadata"' inspect "$dir/bare" --json
rm "$dir/bare/tokenizer.json"; cp $folder/config.json "$dir/bare"
prints "a model without tokenizer" '^Tokenizer +none: .*E-TOK-001' inspect "$dir/bare"
prints "which does not keep it from running" '"runs":true,' inspect "$dir/bare" --json
prints "on ids" '^Runs +on token ids$' inspect "$dir/bare"
LC_ALL=C sed 's/bailingmoe2/bailingmoe3/' "$dir/m.gguf" >"$dir/other.gguf"
prints "a tokenizer that is not known" '^Runs +no: .*bailingmoe3.*E-TOK-004' inspect "$dir/other.gguf"
LC_ALL=C sed 's/blk\.0\.ffn_down/blk.0.ffn_dawn/g' "$dir/m.gguf" >"$dir/other.gguf"
fails "a tensor that is gone, its checksum too" 3 'blk.0.ffn_down.weight.*E-ARCH-' verify "$dir/other.gguf"
for path in $folder $folder/ $folder//; do
    prints "the name of the model in $path" '"kind":"folder","name":"llada-gqa",' inspect "$path" --json
    prints "... as plan tells it" '^Model +llada-gqa, ' plan -m "$path"
done
# ids that only the tokenizer's files name: every command says the same of them
mkdir "$dir/special"; cp $folder/* "$dir/special"; chmod u+w "$dir/special/"*
ids() {
    sed "s/\"mask_token_id\": 500/\"mask_token_id\": $1/" $folder/config.json >"$dir/special/config.json"
    sed "s/\"mask_token\": \"<|mdm_mask|>\"/\"x\": \"\"$2/" $folder/tokenizer_config.json >"$dir/special/tokenizer_config.json"
}
refuses() {
    prints "inspect, $1" "^Runs +no: $dir/special: .*$2" inspect "$dir/special"
    fails "run, $1" 3 "^unmask: error: $dir/special: .*$2" run -m "$dir/special" hello
    fails "quantize, $1" 3 "^unmask: error: $dir/special: .*$2" quantize "$dir/special" "$dir/special.gguf" q8_0 -q
    fails "calibrate, $1" 3 "^unmask: error: $dir/special: .*$2" quantize "$dir/special" "$dir/special.gguf" q8_0 -q --calibrate LICENSE
}
ids null ', "mask_token": "<|endoftext|>"'
refuses "a mask that is the end of text" 'found 481, which is also the eos id, need an id of its own.*E-ARCH-003'
ids null ', "mask_token": "<|eot_id|>"'
refuses "a mask that is the end of a turn" 'found 508, which is also the eot id, need an id of its own.*E-ARCH-003'
ids null ''; refuses "no mask" 'need mask_token_id in config.json or a mask_token.*E-ARCH-008'
ids 500 ''; sed -i 's/"added_tokens_decoder": {/&"600": {"content": "<more>", "special": true},/' "$dir/special/tokenizer_config.json"
refuses "more ids than rows of the embedding" 'found 601 token ids, need at most 512, the rows of the embedding.*E-ARCH-009'

# ---- forward

prints "the five best ids" '^ +2  id 42 +([0-9]+ \(-?[0-9.]+\) *){5}$' forward -m "$dir/bare" --ids 3,17,42
same "a line for each position" "$(wc -l <"$dir/out")" 3
prints "as JSON" '^\{"tokens":2,"positions":\[\{"id":3,"best":\[(\{"id":[0-9]+,"logit":[-0-9.]+\},?){5}\]\},\{"id":17' forward -m $folder --ids '3 17' --json
run forward -m $folder --ids 3,17,42 --logits "$dir/l.npy" --hidden "$dir/h.npy"
same "files: status" "$status" 0
same "files: nothing printed" "$(cat "$dir/out" "$dir/err")" ""
same "magic, version 1.0, length of the header" "$(od -An -tx1 -N10 "$dir/l.npy" | tr -d ' ')" 934e554d505901007600
same "header of the logits" "$(head -c 127 "$dir/l.npy" | tail -c +11 | sed 's/ *$//')" "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 512), }"
same "header of the hidden states" "$(head -c 127 "$dir/h.npy" | tail -c +11 | sed 's/ *$//')" "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 3, 64), }"
same "size of the logits" "$(wc -c <"$dir/l.npy")" $((128 + 3 * 512 * 4))
same "size of the hidden states" "$(wc -c <"$dir/h.npy")" $((128 + 3 * 3 * 64 * 4))
run forward -m $folder --ids 3,17,42
best=$(sed -n '3s/.*id 42 *\([0-9]*\) (\([-0-9.]*\)).*/\1 \2/p' "$dir/out")
set -- $best
value=$(od -An -tf4 -j $((128 + (2 * 512 + $1) * 4)) -N4 "$dir/l.npy" | awk '{ printf "%.4f", $1 }')
same "the best logit stands in its place" "$value" "$(echo "$2" | awk '{ printf "%.4f", $1 }')"
same "and is the largest" "$(od -An -v -tf4 -w4 -j $((128 + 2 * 512 * 4)) "$dir/l.npy" | awk 'NR == 1 || $1 > m { m = $1; at = NR - 1 } END { print at }')" "$1"
fails "a file that exists" 2 'E-FILE-008' forward -m $folder --ids 3 --logits "$dir/l.npy"
fails "before a model is looked for" 2 'E-FILE-008' forward -m "$dir/none" --ids 3 --logits "$dir/l.npy"
fails "the second file, too" 2 'E-FILE-008' forward -m "$dir/none" --ids 3 --logits "$dir/x.npy" --hidden "$dir/h.npy"
same "nothing left of the first" "$(ls -A "$dir" | grep -c x.npy)" 0
run forward -m $folder --ids 3 --logits "$dir/l.npy" --force; same "--force" "$status $(wc -c <"$dir/l.npy")" "0 $((128 + 512 * 4))"
fails "one file for both" 2 'E-CLI-010' forward -m $folder --ids 3 --logits "$dir/x.npy" --hidden "$dir/x.npy"
fails "a folder that is not there" 4 'E-FILE-006' forward -m $folder --ids 3 --logits "$dir/none/x.npy"
fails "no ids" 2 '--ids.*E-CLI-005' forward -m $folder
fails "an empty list" 2 'no id.*E-CLI-004' forward -m $folder --ids ' '
fails "an id that is none" 2 'found x.*E-CLI-004' forward -m $folder --ids 3,x
fails "an id beyond the vocabulary" 2 'token 1\): found 512, need 0 to 511.*E-GEN-003' forward -m $folder --ids 3,512
fails "more ids than the context" 6 'found 257 tokens, need 1 to 256.*E-GEN-002' forward -m $folder --ids "$(seq -s, 1 257)"
fails "an argument" 2 'E-CLI-006' forward -m $folder --ids 3 x
fails "a set that is none" 2 'isa.*avx9' forward -m $folder --ids 3 --isa avx9
case $(uname -m) in x86_64) other=neon ;; *) other=avx2 ;; esac
[ -n "$RUNNER" ] || fails "a set of another CPU" 2 "isa.*$other" forward -m $folder --ids 3 --isa $other
(ulimit -f 4; $unmask forward -m $folder --ids 3,17,42,5,6,7,8,9 --logits "$dir/big.npy") >"$dir/out" 2>"$dir/err"
same "a limit on files: status" "$?" 4
same "a limit on files: nothing left" "$(ls -A "$dir" | grep -c big.npy)" 0
mkdir "$dir/disk"       # of 64 KiB, in a namespace of mounts
if unshare -rm mount -t tmpfs -o size=64k none "$dir/disk" 2>/dev/null; then
    unshare -rm sh -c 'mount -t tmpfs -o size=64k none "$0" && "$@"; status=$?; [ "$(ls -A "$0")" = "" ] || echo left: "$0"/*; exit $status' "$dir/disk" \
        $unmask forward -m $folder --ids "$(seq -s, 1 200)" --logits "$dir/disk/l.npy" >"$dir/out" 2>"$dir/err"
    same "a small disk: status, nothing left" "$? $(cat "$dir/out")" "4 "
    same "a small disk: what it has and what is needed" "$(grep -c 'l.npy: not enough free space: found 6[0-4]\.[0-9] KiB, need 400\.1 KiB.*E-FILE-009' "$dir/err")" 1
else echo "skip: forward on a small disk: no namespace of mounts may be made here"; fi

# A checkpoint of 256 MiB, all zeros that take no room on the disk, where 100 MB may be had.
mkdir "$dir/large"
sed 's/"d_model": 64/"d_model": 512/; s/"vocab_size": 512/"vocab_size": 65536/; s/"embedding_size": 512/"embedding_size": 65536/; s/"n_layers": 3/"n_layers": 1/; s/"mlp_hidden_size": 160/"mlp_hidden_size": 32/' \
    $folder/config.json >"$dir/large/config.json"
header=''; at=0
tensor() { size=$(($2 * ${3:-1} * 4)); header="$header,\"model.transformer.$1\":{\"dtype\":\"F32\",\"shape\":[$2${3:+,$3}],\"data_offsets\":[$at,$((at + size))]}"; at=$((at + size)); }
tensor wte.weight 65536 512; tensor ff_out.weight 65536 512; tensor ln_f.weight 512
b=blocks.0; tensor $b.attn_norm.weight 512; tensor $b.ff_norm.weight 512; tensor $b.q_proj.weight 512 512; tensor $b.k_proj.weight 256 512; tensor $b.v_proj.weight 256 512
tensor $b.attn_out.weight 512 512; tensor $b.ff_proj.weight 32 512; tensor $b.up_proj.weight 32 512; tensor $b.ff_out.weight 512 32
header="{${header#,}}"; n=${#header}
{ printf "$(printf '\\%03o\\%03o\\0\\0\\0\\0\\0\\0' $((n % 256)) $((n / 256)))"; printf %s "$header"; } >"$dir/large/model.safetensors"
truncate -s $((8 + n + at)) "$dir/large/model.safetensors"
prints "a large folder" '^Memory +25[0-9]\.[0-9] MiB for the weights' inspect "$dir/large"
case $UNMASK in *san*) ;; *)
    if [ -z "$RUNNER" ]; then
        (ulimit -d 100000; $unmask forward -m "$dir/large" --ids 3) >"$dir/out" 2>"$dir/err"
        same "too large for memory: status" "$?" 5
        if grep -q "large: model does not fit in memory.*unmask quantize $dir/large model-q4_0.gguf q4_0.*E-MEM-002" "$dir/err"; then ok; else bad "too large for memory:"; cat "$dir/err"; fi
        (ulimit -d 100000; $unmask inspect "$dir/large") >"$dir/out" 2>"$dir/err"
        if grep -q '^Runs  *no: not in the memory' "$dir/out"; then ok; else bad "inspect says so:"; cat "$dir/out" "$dir/err"; fi
    fi ;;
esac

# ---- eval

flags="--gen-length 8 --block-length 8 --steps 8 --json"
printf '{"q":"one","a":"?"}\n\n{"q":"two","a":"?","more":[1]}\n{"q":"three","a":"?"}' >"$dir/q"
prints "exact match" '^\{"exact_match":\{"n":3,"correct":0,"share":0,"low":0,"high":0\.561497[0-9]*\},"seconds":[0-9.]+\}$' eval -m $folder --exact-match "$dir/q" $flags
prints "the first lines alone" '"n":2,' eval -m $folder --exact-match "$dir/q" --limit 2 $flags
prints "for people" '^exact match  0\.0 %  \(0 of 3; 95 % interval 0\.0 to 56\.1 %\)$' eval -m $folder --exact-match "$dir/q" --gen-length 8
answer=$($unmask run -m $folder $flags one | sed 's/.*"text":\("\([^"\\]\|\\.\)*"\),"ids".*/\1/')
printf '{"q":"one","a":%s}\n' "$answer" >"$dir/right"
prints "the model's own answer is exact ($answer)" '"n":1,"correct":1,"share":1,"low":0\.2065[0-9]*,"high":1\}' eval -m $folder --exact-match "$dir/right" $flags

printf '{"prompt_ids":[3,17],"answer_ids":[42,7,9]}\n{"prompt_ids":[],"answer_ids":[5,6,7,8,9]}\n' >"$dir/ids"
prints "likelihood of ids, without a tokenizer" '^\{"likelihood":\{"n":2,"tokens":8,"nats_per_token":[0-9.]+,"low":-?[0-9.]+,"high":[0-9.]+,"mc":8,"seed":18446744073709551615,"perplexity":[-+0-9.e]+\},"seconds":[0-9.]+\}$' \
    eval -m "$dir/bare" --likelihood "$dir/ids" --mc 8 --seed 18446744073709551615 --json
sed 's/,"seconds.*//' "$dir/out" >"$dir/once"; run eval -m "$dir/bare" --likelihood "$dir/ids" --mc 8 --seed 18446744073709551615 --json --isa scalar -t 1
same "the same with scalar kernels and one thread" "$(sed 's/,"seconds.*//' "$dir/out")" "$(cat "$dir/once")"
prints "one line has no interval" '"low":null,"high":null' eval -m "$dir/bare" --likelihood "$dir/ids" --mc 2 --limit 1 --json
$unmask eval -m "$dir/bare" --likelihood - --mc 8 --seed 18446744073709551615 --json <"$dir/ids" >"$dir/out" 2>"$dir/err"
same "the same from standard input" "$(sed 's/,"seconds.*//' "$dir/out")" "$(cat "$dir/once")"
printf '{"prompt":"Hello","answer":"One day a cat sat on a mat."}\n' >"$dir/text"
prints "likelihood of text" '^likelihood  at most [0-9.]+ nats per token, perplexity bound [0-9.e+]+; 1 lines, [0-9]+ tokens, mc 4, seed 0$' eval -m $folder --likelihood "$dir/text" --mc 4
# in some of these draws the masks end with a full batch of rows for the output head, and other positions follow
printf '{"prompt_ids":[3],"answer_ids":[%s]}\n' "$(seq -s, 1 64)" >"$dir/text"
prints "many draws" '"tokens":64,' eval -m $folder --likelihood "$dir/text" --mc 256 --json

{ cat "$dir/text"; echo '[1]'; } >"$dir/list"
fails "nothing to measure" 2 'E-CLI-005' eval -m $folder
fails "two measures" 2 'E-CLI-010' eval -m $folder --likelihood "$dir/ids" --exact-match "$dir/q"
fails "no such file" 4 'E-FILE-001' eval -m $folder --exact-match "$dir/none"
fails "an empty file" 2 'no line.*E-CLI-012' eval -m $folder --exact-match "$dir/empty"
fails "other fields" 2 'line 1\): .*"q" and "a".*E-CLI-012' eval -m $folder --exact-match "$dir/ids"
printf '{"q":"x","a":"y"}\n{"q":\n' >"$dir/broken"
fails "a broken line" 2 'line 2, byte 5\): .*need a JSON object.*E-CLI-012' eval -m $folder --exact-match "$dir/broken"
printf '{"prompt_ids":[1],"answer_ids":[2,"x"]}\n' >"$dir/broken"
fails "a list with text" 2 'line 1\): found another value in "answer_ids".*E-CLI-012' eval -m $folder --likelihood "$dir/broken"
printf '{"prompt_ids":[1],"answer_ids":[2,512]}\n' >"$dir/broken"
fails "an id beyond the vocabulary" 2 'broken, line 1: .*found 512.*E-GEN-003' eval -m $folder --likelihood "$dir/broken"
printf '{"prompt_ids":[1],"answer_ids":[]}\n' >"$dir/broken"
fails "no answer" 6 'broken, line 1: .*E-GEN-002' eval -m $folder --likelihood "$dir/broken"
printf '{"prompt_ids":[1],"answer_ids":[2,512]}\n' | $unmask eval -m $folder --likelihood - >"$dir/out" 2>"$dir/err"
same "a line of standard input" "$(grep -c 'error: standard input, line 1: .*found 512.*E-GEN-003' "$dir/err")" 1
fails "a line that is no object" 2 'line 2\): need a JSON object.*E-CLI-012' eval -m $folder --likelihood "$dir/list"
fails "questions without a tokenizer" 3 'E-TOK-001' eval -m "$dir/bare" --exact-match "$dir/q"

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
