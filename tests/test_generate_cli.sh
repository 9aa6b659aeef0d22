#!/bin/sh
# unmask run, infill and chat as commands: what they print and where, exit codes, the canvas, interruption.
program=${UNMASK:-build/unmask}
unmask="$RUNNER $program"
passed=0; failed=0
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
tiny=$dir/tiny                                  # without its tokenizer: ids only
mkdir "$tiny"; cp tests/data/checkpoints/llada-tiny/config.json tests/data/checkpoints/llada-tiny/*.safetensors "$tiny"
export HOME="$dir" LC_ALL=C.UTF-8
unset XDG_CONFIG_HOME NO_COLOR
export UNMASK_MODEL=models/unmask-demo-6M-v1.0-Q8_0.gguf

check() { if [ "$2" = "$3" ]; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "$1: \"$2\", need \"$3\""; fi; }
# expect NAME STATUS PATTERN: the last run ended so, its standard output is empty, its standard error one line with the pattern
expect() {
    if [ "$status" -eq "$2" ] && [ ! -s "$dir/out" ] && [ "$(wc -l <"$dir/err")" -eq 1 ] && grep -q -- "$3" "$dir/err"; then passed=$((passed + 1)); return; fi
    failed=$((failed + 1)); echo "$1: status $status, need $2 and \"$3\":"; cat "$dir/out" "$dir/err"
}
run() { $unmask "$@" >"$dir/out" 2>"$dir/err" </dev/null; status=$?; }
# said NAME TEXT: the last run succeeded with exactly this on standard output and nothing on standard error
said() { check "$1" "$status|$(cat "$dir/out")|$(cat "$dir/err")" "0|$2|"; }
field() { sed 's/.*"'"$1"'":\(\[[^]]*\]\|"[^"]*"\|[^,}]*\).*/\1/' "$dir/out"; }
short="--gen-length 40 --block-length 40"
light='{"device":"kitchen light","action":"on"}'

# ---- run: the ways to give a prompt
run run "turn on the kitchen light" $short;                     said "a prompt as argument" "$light"
run run -p "turn on the kitchen light" $short;                  said "a prompt as flag" "$light"
printf 'turn on the kitchen light' >"$dir/prompt"
run run -p "@$dir/prompt" $short;                               said "a prompt in a file" "$light"
for dash in "-" ""; do
    echo "turn on the kitchen light" | $unmask run $dash $short >"$dir/out" 2>"$dir/err"; status=$?
    said "a prompt from a pipe ($dash)" "$light"
done
run run --raw "Tom had a" --gen-length 8 --block-length 8;      check "plain continuation" "$status|$(wc -l <"$dir/out")|$(cat "$dir/err")" "0|1|"
run run "what is the capital of Japan?" $short --steps 40 --stop " Tokyo" --stop "zzz"
said "a stop text" "The capital of Japan is"
run run "turn on the kitchen light" $short --stop light --stop ight;  said "the first of two that overlap" '{"device":"kitchen '
run run "turn on the kitchen light" $short --stop ight --stop light;  said "... in the other order" '{"device":"kitchen '
run run --raw "Once upon a time" --gen-length 64 --block-length 8 --steps 64 --early-stop off --stop "." --json
check "which ends the work too" "$(field finish_reason) $(field steps | awk '{ print ($1 > 3 && $1 < 33) }') $(field ids | grep -c 4085)" '"stop" 1 0'
for stop in "runs on" "mall" "I am" "is dev"; do                # between tokens, within one, at the beginning
    run run "who are you?" $short --stop "$stop" --json
    text=$(field text | tr -d '"'); ids=$(field ids | tr -d '[]'); fewer=${ids%,*}
    check "as many ids as the text takes ($stop)" "$(case $($unmask detokenize "$ids" 2>/dev/null) in "$text"*) echo spell ;; esac) $(case $($unmask detokenize "$fewer" 2>/dev/null) in "$text"*) [ "$ids" = "$fewer" ] || echo more ;; esac)" "spell "
    check "which are those counted ($stop)" "$(field completion_tokens)" "$(echo $ids | tr ',' ' ' | wc -w)"
done

if [ -f "$(dirname "$program")/../$UNMASK_MODEL" ]; then
    UNMASK_MODEL= run run "turn on the kitchen light" $short;   said "the embedded model" "$light"
fi

# ---- run --json
run run "turn on the kitchen light" $short --json --seed 18446744073709551615
shape='^{"text":"{\\"device\\":\\"kitchen light\\",\\"action\\":\\"on\\"}","ids":\[[0-9,]*,4081\],"finish_reason":"stop","usage":{"prompt_tokens":20,"completion_tokens":11,"total_tokens":31},"x_diffusion":{"steps":[0-9]*,"passes":[0-9]*,"blocks":1,"seed":18446744073709551615,"ms_total":[0-9.]*,"confidence_min":0\.[0-9]*,"rows":[0-9]*,"audit":{"audits":0,"disagreements":0,"refreshes":0,"largest_error":0,"kl":0},"isa":"[a-z0-9]*","peak_rss_bytes":[0-9]*}}$'
check "json" "$status|$(grep -c "$shape" "$dir/out")|$(cat "$dir/err")" "0|1|"
check "ids end with the first end token" "$(field ids)" "[337,336,285,1219,519,302,335,285,271,349,4081]"
run run "turn on the kitchen light" $short --json --early-stop off
check "all positions without early stop" "$(field ids | tr -cd ',' | wc -c) $(field completion_tokens) $(field finish_reason) $(field text | cut -c1-4)" '39 11 "stop" "{\"'
run run "turn on the kitchen light" --gen-length 4 --block-length 4 --json
check "an answer cut by its length" "$(field finish_reason) $(field completion_tokens)" '"length" 4'
run run -m $tiny --prompt-ids 3,17,42 --gen-length 16 --block-length 8 --steps 8 --json
check "ids without a tokenizer" "$status|$(cut -c1-36 "$dir/out")|$(field finish_reason)" '0|{"text":null,"ids":[253,253,140,179,|"length"'
run run -m $tiny --prompt-ids "3 17 42" --gen-length 16 --block-length 8 --steps 8
said "plain ids" "253 253 140 179 384 179 87 140 140 140 508 338 338 140 338 140"
run run -m $tiny --prompt-ids 3,17,42 --gen-length 16 --block-length 8 --steps 8 -v
check "summary" "$(grep -c '^unmask: 8 steps, 16 tokens in [0-9.]* s, [0-9.]* tokens/s, peak memory [0-9.]* MiB, [a-z0-9]*, seed 0$' "$dir/err")" 1
run run -m $tiny --prompt-ids 3,17,42 --gen-length 4 --block-length 4 --steps 1 --seed -1 -v
check "one step, and the seed that was drawn" "$(grep -c '^unmask: 1 step, .* seed [0-9]*$' "$dir/err")|$(grep -c 'note: seed' "$dir/err")" "1|0"
run run -m $tiny --prompt-ids 3,17,42 --gen-length 16 --block-length 8 --steps 8 --temperature 1 --seed -1
first=$(cat "$dir/out") seed=$(sed -n 's/^unmask: note: seed //p' "$dir/err")
run run -m $tiny --prompt-ids 3,17,42 --gen-length 16 --block-length 8 --steps 8 --temperature 1 --seed "$seed"
check "a random seed is told, and gives the answer again" "$(cat "$dir/out")|$(cat "$dir/err")" "$first|"
run run -m $tiny --prompt-ids 3,17,42 --gen-length 4000 --block-length 8 --steps 40
check "an answer cut by the context" "$status|$(grep -c '^unmask: note: answer cut to [0-9]* positions: 3 prompt tokens, and a context of [0-9]*$' "$dir/err")" "0|1"
run run -m $tiny --prompt-ids 3,17,42 --gen-length 4000 --block-length 8 --steps 40 -q
check "the same with -q" "$status|$(cat "$dir/err")" "0|"

# ---- traces
trace="run -m $tiny --prompt-ids 3,17,42 --gen-length 4 --block-length 4 --steps 2 --trace $dir/trace"
run $trace
check "trace" "$status|$(sed 's/"confidence":\[[-0-9.e,+]*\]/C/' "$dir/trace" | sed 's/\([0-9]*,\)\{6\}//' | cut -c1-24 | tr '\n' ' ')" \
      '0|{"step":0,"canvas":[500] {"step":1,"canvas":['"$(sed -n '2s/.*canvas":\[\([0-9,]*\)\].*/\1/p' "$dir/trace" | cut -d, -f7)"'] {"step":2,"canvas":['"$(sed -n '3s/.*canvas":\[\([0-9,]*\)\].*/\1/p' "$dir/trace" | cut -d, -f7)"'] '
check "start canvas" "$(head -1 "$dir/trace")" '{"step":0,"canvas":[3,17,42,500,500,500,500],"committed":[],"confidence":[]}'
check "two committed by each step" "$(grep -c '"committed":\[[3-6],[3-6]\],"confidence":\[0\.[0-9]*,0\.[0-9]*\]}$' "$dir/trace")" 2
run $trace;                                 check "a trace replaces a trace" "$status" 0
echo precious >"$dir/trace"; run $trace;    expect "but no other file" 2 "$dir/trace: exists already.*--force.*E-FILE-008"
check "which stays" "$(cat "$dir/trace")" precious
echo '{"step":1,"loss":2.5}' >"$dir/trace"; run $trace;    expect "nor a log of other steps" 2 "$dir/trace: exists already.*E-FILE-008"
check "which stays, too" "$(cat "$dir/trace")" '{"step":1,"loss":2.5}'
run run -m "$dir/none" --trace "$dir/trace" x; expect "before a model is looked for" 2 "E-FILE-008"
run $trace --force;                         check "unless forced" "$status|$(wc -l <"$dir/trace")" "0|3"
run $trace/none;                            expect "a trace where no folder is" 4 "E-FILE-006"
mkdir "$dir/real"; : >"$dir/real/t"; ln -s real/t "$dir/link"; run ${trace%/*}/link
check "a trace through a link" "$status|$(wc -l <"$dir/real/t")|$(readlink "$dir/link")" "0|3|real/t"
mkfifo "$dir/pipe"; ln -s pipe "$dir/link to pipe"
for to in "$dir/pipe" "$dir/link to pipe" /dev/null; do
    timeout 60 $unmask ${trace% *} "$to" >"$dir/out" 2>"$dir/err"; status=$?
    expect "a trace to what is no file ($to)" 2 "$to: not a place for a file.*a device or a pipe.*E-FILE-007"
done
: >"$dir/both"; $unmask ${trace% *} "$dir/both" >>"$dir/both" 2>"$dir/err"; status=$?; : >"$dir/out"
expect "a trace to the answer's file" 2 "another output of this run.*E-FILE-007"
$RUNNER sh -c "ulimit -f 1; exec $program run -m $tiny --prompt-ids 3,17,42 --gen-length 40 --block-length 8 --steps 40 --trace $dir/long" >"$dir/out" 2>"$dir/err"; status=$?
expect "a trace on a full disk" 4 "$dir/long: cannot write.*E-FILE-006"
check "nothing is left of it" "$(ls -A "$dir" | grep -c long)" 0

# ---- run: what is refused
run run;                                    expect "an empty standard input" 2 "prompt is empty.*E-GEN-007"
run run "";                                 expect "an empty prompt" 2 "E-GEN-007"
run run "  ";                               expect "a blank prompt" 2 "E-GEN-007"
run run --prompt-ids "";                    expect "no ids" 2 "E-GEN-007"
run run --prompt-ids 3,x -m $tiny;          expect "ids that are none" 2 "found x.*E-CLI-004"
run run --prompt-ids 3,512 -m $tiny;        expect "an id outside the vocabulary" 2 "found 512.*E-GEN-003"
run run a b;                                expect "two prompts" 2 "E-CLI-006"
run run a -p b;                             expect "two prompts in two ways" 2 "E-CLI-010"
run run a --prompt-ids 3;                   expect "text and ids" 2 "E-CLI-010"
run run --prompt-ids 3 --stop x;            expect "ids and a stop text" 2 "E-CLI-010"
run run --prompt-ids 3 --system x;          expect "ids and a system message" 2 "E-CLI-010"
run run a --system "$(printf '\377')";      expect "a system message that is no text" 2 "(message 1, system, byte 0): found 0xFF.*E-TOK-012"
run run --raw a --system x;                 expect "raw and a system message" 2 "E-CLI-010"
run run -m $tiny hello;                     expect "text without a tokenizer" 3 "E-TOK-001"
cp -r tests/data/checkpoints/llada-tiny "$dir/base"; grep -v chat_template tests/data/checkpoints/llada-tiny/tokenizer_config.json >"$dir/base/tokenizer_config.json"
run run -m "$dir/base" hello;               expect "a model that cannot talk" 3 "no chat template.*--raw.*E-TOK-020"
run run -p "@$dir/none";                    expect "a file that is missing" 4 "$dir/none.*E-FILE-001"
run run -p "@$dir";                         expect "a folder" 4 "E-FILE-002"
printf 'ab\377' >"$dir/binary"
run run -p "@$dir/binary";                  expect "a binary" 2 "byte 2.*0xff.*E-CLI-008"
run run --stop "$(printf 'a\377')" x;       expect "a stop text that is none" 2 "(--stop, byte 1): found byte 0xff.*E-CLI-008"
run chat --stop . --stop "$(printf '\377')"; expect "nor is the second one" 2 "(--stop, byte 0): found byte 0xff.*E-CLI-008"
run run --stop "" x;                        expect "an empty stop text" 2 "E-CLI-004"
run run --steps 0 x;                        expect "no steps" 2 "steps.*E-CLI-004"
run run --block-length 0 x;                 expect "no block" 2 "block-length.*E-CLI-004"
run run --threshold 0.5 --factor 1 x;       expect "two commit rules" 2 "E-CLI-010"
run run "$(printf '%0400d' 7)";             expect "a prompt that leaves no room" 6 "prompt tokens and a block of 32.*256.*E-GEN-002"
run run --json "";                          expect "an error as JSON" 2 '^{"error":{"id":"E-GEN-007",.*"exit":2}}$'
{ printf 'hello\000'; printf '%0400d' 7; } | $unmask run - >"$dir/out" 2>"$dir/err"; status=$?
expect "a NUL does not end a prompt" 6 "E-GEN-002"

# ---- standard output that is closed, full, or left early
$unmask run "turn on the kitchen light" $short >&- 2>"$dir/err"; check "closed" "$?|$(grep -c E-CLI-011 "$dir/err")" "4|1"
if [ -e /dev/full ]; then
    : >"$dir/out"
    $unmask run "turn on the kitchen light" $short >/dev/full 2>"$dir/err"; status=$?
    expect "full" 4 "cannot write to standard output.*No space.*E-CLI-011"
fi
{ $unmask run "turn on the kitchen light" $short 2>"$dir/err"; echo $? >"$dir/status"; } | head -c 1 >"$dir/out"
check "left early" "$(cat "$dir/status" "$dir/out" "$dir/err")" "0
{"

yes "what is the capital of Japan?" | head -200 | { $unmask chat --gen-length 8 --block-length 8 2>"$dir/err"; echo $? >"$dir/status"; } | head -n 1 >"$dir/out"
check "left early in a chat" "$(cat "$dir/status" "$dir/err" | grep -v note)" "0"
$unmask run "turn on the kitchen light" $short --watch=on 2>&1 >"$dir/out" | head -c 1 >"$dir/err"
check "a canvas that nobody watches" "$(cat "$dir/out")" "$light"

# ---- infill
one="Tom had a red ball. One day [[8]] Tom was very sad."
run infill "$one"
said "a hole" "Tom had a red ball. One day, Tom saw a big red ball. Tom was very sad."
run infill "$one" --json
check "json" "$status|$(sed 's/,"finish.*//; s/"ids":\[[0-9,]*\]/"ids":[]/' "$dir/out")" \
      '0|{"text":"Tom had a red ball. One day, Tom saw a big red ball. Tom was very sad.","holes":[{"name":null,"text":", Tom saw a big red ball.","ids":[]}]'
check "figures" "$(grep -c '"finish_reason":"length","usage":{"prompt_tokens":13,"completion_tokens":8,"total_tokens":21},"x_diffusion":{"steps":[0-9]*,"passes":[0-9]*,"blocks":1,"seed":0,' "$dir/out")" 1
run infill "$one" --json --block-length 3 --steps 8
check "blocks and steps" "$(field steps) $(field passes) $(field blocks)" "8 8 3"
printf 'diffusion:\n  block_length: 3\n' >"$dir/blocks.yaml"
run infill "$one" --json -c "$dir/blocks.yaml";                 check "blocks of a file are run's and chat's" "$(field blocks)" 1
UNMASK_DIFFUSION_BLOCK_LENGTH=3 run infill "$one" --json;       check "those of the environment are infill's, too" "$(field blocks)" 3
run infill -h
check "which the help says, and so do the settings" "$(cat "$dir/out" configs/default.yaml | grep -c 'only the flag or the environment asks for blocks\|unless the flag or the environment asks for blocks')" 2
run infill "[[who:1]] had a cat. The cat of [[who:1]] was [[2]]." --json
check "a name has one text" "$(grep -o '{"name":"who"[^}]*}' "$dir/out" | sort -u | wc -l) $(grep -o '"name":null' "$dir/out" | wc -l)" "1 1"
run infill '\[[1]] is [[1]]';               check "brackets" "$status|$(cut -c1-8 "$dir/out")" "0|[[1]] is"
run infill 'x [[[1]]]';                     check "a hole in brackets" "$status|$(sed 's/^\(x \[\)[^]]*\]$/\1]/' "$dir/out")" "0|x []"
printf '%s\n' "$one" | $unmask infill >"$dir/out" 2>"$dir/err"; status=$?
check "a text from a pipe" "$status|$(cut -c1-30 "$dir/out")" "0|Tom had a red ball. One day, T"
cp -r tests/data/checkpoints/llada-gqa "$dir/other"     # its files name another end of turn than its template writes
sed '0,/{/s//{"eot_token":"<|endoftext|>",/' tests/data/checkpoints/llada-gqa/tokenizer_config.json >"$dir/other/tokenizer_config.json"
check "the template's counts" "$($unmask inspect "$dir/other" | grep -o 'end of turn [0-9]*')" "end of turn 508"
run infill -m "$dir/other" --chat "ab [[2]] cd" --trace "$dir/other.jsonl"
check "the text stands in the template" "$status $(sed -n '1s/.*"canvas":\[\([^]]*\)\].*/\1/p' "$dir/other.jsonl")" \
    "0 480,506,308,269,507,10,10,312,500,500,285,100,508,506,267,115,401,507,10,10"
run infill --chat -p "turn on the kitchen light" '{"device":"[[2]]","action":"[[1]]"}'
said "the answer to a question" "$light"
run infill --chat "turn on the [[1]] light" --trace "$dir/t"
check "a user's message" "$status|$(wc -w <"$dir/out")|$(head -1 "$dir/t" | grep -c '4085,[0-9]*,4084,')" "0|5|1"
run infill --raw x;                         expect "a flag of run" 2 "E-CLI-002"
run infill "no hole";                       expect "no hole" 2 "E-GEN-008"
run infill "a [[x]]";                       expect "not a hole" 2 "byte 2.*found \[\[x.*E-GEN-009"
run infill "[[65537]]";                     expect "a hole too long" 6 "65536.*E-GEN-010"
run infill "[[a:1]] [[a:2]]";               expect "a name with two lengths" 2 "E-GEN-011"
run infill "[[0]]";                         expect "nothing to fill" 2 "E-GEN-004"
run infill "[[300]]";                       expect "a canvas longer than the context" 6 "300 tokens.*256.*E-GEN-002"
run infill a b;                             expect "two texts" 2 "E-CLI-006"
run infill "[[1]]" -p "[[1]]";              expect "two texts in two ways" 2 "E-CLI-010"
run infill -m $tiny "[[1]]";                expect "holes without a tokenizer" 3 "E-TOK-001"

# ---- chat through a pipe
chat() { printf "$1" | $unmask chat $2 $short >"$dir/out" 2>"$dir/err"; status=$?; }
chat 'turn on the kitchen light\n\n/quit\nnot asked\n';             said "a question" "$light"
chat 'turn on the kitchen light' -q;                                said "a line without an end" "$light"
chat '';                                                            said "nothing" ""
chat '\000turn on the kitchen light\n \000\n' --json;               check "a NUL does not make a line blank" "$status|$(wc -l <"$dir/out")|$(cat "$dir/err")" "0|2|"
chat 'turn on the kitchen light\nwho are you?\n' --json
check "one object per answer" "$status|$(grep -c '^{"text":".*","ids":\[.*"finish_reason":.*}}$' "$dir/out")|$(cat "$dir/err")" "0|2|"
check "the history is part of the prompt" "$(tail -1 "$dir/out" | grep -o '"prompt_tokens":[0-9]*')" '"prompt_tokens":50'
chat 'turn on the kitchen light\n/redo\n/stats\n' '--temperature 0.3'
check "redo and stats" "$(wc -l <"$dir/out")|$(grep -c 'seed 1$' "$dir/err")|$(grep -c '1 turns, [0-9]* of 256 tokens of context' "$dir/err")" "2|1|1"
chat '/redo\n/stats\n/help\n/rdeo\n/nonsense\n/system Be brief.\n'
check "commands" "$status|$(cat "$dir/out")|$(grep -c 'no question yet\|no answer yet\|^/redo \|did you mean /redo\|no /nonsense here' "$dir/err")" "0||5"
chat '/system Be brief.\nturn on the kitchen light\n' --json
check "a system message is part of the prompt" "$(grep -o '"prompt_tokens":[0-9]*' "$dir/out")" '"prompt_tokens":32'
long="$(printf '%080d' 7)"
chat "$long\n$long\n$long\n"
check "what no longer fits is forgotten aloud" "$status|$(grep -c 'no longer fit the context of 256 tokens; the oldest 1 of 2 turns is forgotten' "$dir/err" | sed 's/[1-9]/some/')" "0|some"
chat "$(printf '%0400d' 7)\n";              expect "a question that leaves no room" 6 "E-GEN-002"
run chat hello;                             expect "a question as argument" 2 "E-CLI-006"
for command in chat run; do
    $unmask $command </ >"$dir/out" 2>"$dir/err"; status=$?; expect "$command: a folder as standard input" 4 "standard input: cannot read: found Is a directory.*E-FILE-003"
done
run chat -m $tiny;                          expect "a chat without a tokenizer" 3 "E-TOK-001"

# ---- interruption: the partial text stays, and so do the lines of the trace
slow="--block-length 192 --steps 192 --isa scalar -t 1"      # a step takes hundredths of a second everywhere
# interrupt SIGNAL COMMAND: send the signal when the trace has begun; the name of its temporary file tells whom
interrupt() {
    signal=$1; shift
    rm -f "$dir/slow"
    {
        tries=0
        while [ $tries -lt 200 ] && ! grep -qs '"step":2' "$dir"/.unmask-slow-*; do sleep 0.1; tries=$((tries + 1)); done
        kill -s "$signal" "$(ls -A "$dir" | sed -n 's/.unmask-slow-\([0-9]*\).part/\1/p')"
    } &
    $unmask "$@" --trace "$dir/slow" >"$dir/out" 2>"$dir/err"; status=$?
    wait
}
# traced: the trace is there, nothing half-written beside it, and all of it is whole lines, the steps up to the signal
traced() {
    lines=$(grep -c '^{"step":[0-9]*,"canvas":\[[0-9,]*\],"committed":\[[0-9,]*\],"confidence":\[[-0-9.e,+]*\]}$' "$dir/slow") || lines=0
    echo "$(ls -A "$dir" | grep slow) $([ "$lines" -ge 3 ] && [ "$lines" -lt 193 ] && [ "$lines" -eq "$(wc -l <"$dir/slow")" ] && echo whole)"
}
interrupt INT run --raw Once --gen-length 192 $slow
check "Ctrl-C" "$status|$(wc -l <"$dir/out")|$(cat "$dir/err")|$(traced)" "130|1||slow whole"
interrupt TERM run --raw Once --gen-length 192 $slow --json
check "SIGTERM" "$status|$(grep -c '"finish_reason":"cancelled"' "$dir/out")|$(cat "$dir/err")|$(traced)" "143|1||slow whole"
interrupt INT infill "Once upon a time [[192]]" $slow --json
check "Ctrl-C while holes are filled" "$status|$(grep -c '"finish_reason":"cancelled","usage"' "$dir/out")|$(cat "$dir/err")|$(traced)" "130|1||slow whole"

# ---- on a terminal
esc=$(printf '\033'); shade=$(printf '\342\226\221')
if [ -z "$RUNNER" ] && command -v script >/dev/null; then
    # tty COMMANDS: run on a pseudo-terminal; what it was sent stands in out
    tty() { script -qec "$1" /dev/null </dev/null >"$dir/out" 2>&1; status=$?; }
    export TERM=xterm
    question="'turn on the kitchen light' $short"
    tty "$program run $question"
    check "canvas" "$status|$(grep -c "step 0  block 1/1  masked 40  new 0  settled 0   0\.[0-9] s" "$dir/out")|$(grep -c "$shade$shade" "$dir/out" | sed 's/[1-9].*/some/')" "0|1|some"
    check "is erased before the answer" "$(tail -1 "$dir/out" | tr -d '\r' | sed "s/.*$esc\[J//")" "$light"
    check "new tokens are highlighted" "$(grep -c "$esc\[0;1;32m" "$dir/out" | sed 's/[1-9].*/some/')" some
    tty "$program run $question --steps 8"; check "steps of a schedule" "$(grep -c "step 1/8  block 1/1" "$dir/out")" 1
    tty "NO_COLOR=1 $program run $question"; check "NO_COLOR" "$(grep -c "$esc\[[0-9;]*m" "$dir/out")|$(grep -c 'step 0' "$dir/out")" "0|1"
    for off in "TERM=dumb $program" "LANG=C $program --version | cat; $program"; do
        tty "$off run $question --watch=off"; check "no canvas" "$status|$(grep -c "$esc" "$dir/out")" "0|0"
    done
    tty "TERM=dumb $program run $question"; check "TERM=dumb" "$status|$(tr -d '\r' <"$dir/out")" "0|$light"
    tty "$program run $question | cat";     check "a pipe" "$status|$(tr -d '\r' <"$dir/out")" "0|$light"
    tty "$program run $question --json";    check "json on a terminal" "$status|$(grep -c "$esc" "$dir/out")" "0|0"
    tty "$program run $question -q";        check "quiet" "$status|$(tr -d '\r' <"$dir/out")" "0|$light"
    tty "LC_ALL=C $program run $question";  check "a terminal without UTF-8" "$(grep -c "$shade" "$dir/out")|$(grep -c '\.\.\.\.\.\.' "$dir/out" | sed 's/[1-9].*/some/')" "0|some"
    for size in "cols 1 rows 1" "cols 1 rows 40" "cols 2 rows 3" "cols 200 rows 2"; do
        tty "stty $size; $program run $question"
        check "a terminal of $size" "$status|$(tail -1 "$dir/out" | tr -d '\r' | sed "s/.*$esc\[J//")" "0|$light"
    done
    tty "$program infill '$one'"
    check "infill" "$status|$(grep -c "One day$esc\[0;2m$shade" "$dir/out")" "0|1"

    # talk KEYS FLAGS: a chat on a pseudo-terminal.  Keys wait for what they answer to, not for a time: seen N TEXT returns when the
    # terminal has shown TEXT N times, or after half a minute.  What hangs all the same ends after two.  exec: a shell between would
    # take the Ctrl-C too, and end.
    seen() {
        tries=0
        while [ $tries -lt 300 ] && [ "$(grep -ao -- "$2" "$dir/out" 2>/dev/null | wc -l)" -lt "$1" ]; do sleep 0.1; tries=$((tries + 1)); done
        sleep 0.3
    }
    talk() { rm -f "$dir/out"; eval "$1" | timeout 120 script -qec "echo \$\$ >$dir/pid; exec $program chat $2" /dev/null >"$dir/out" 2>&1; status=$?; }
    talk "seen 1 '^> '; printf 'turn on the kitchen light\n'; seen 1 '\"on\"}'; seen 2 '^> '; printf '/quit\n'; sleep 1" "$short"
    check "chat" "$status|$(grep -c '^> ' "$dir/out" | sed 's/[2-9]/some/')|$(grep -c 'Ctrl-D ends' "$dir/out")|$(tr -d '\r' <"$dir/out" | grep -c "$light\$" | sed 's/[1-9]/some/')" "0|some|1|some"
    talk "seen 1 '^> '; printf 'who are you?\n'; seen 1 'step 2/192'; printf '\003'; seen 2 '^> '; printf '/stats\n'; seen 1 '1 turns'; printf '\004'; sleep 1" \
         "--gen-length 192 --block-length 192 --steps 192 --early-stop off"
    check "Ctrl-C ends an answer, Ctrl-D the chat" "$status|$(grep -c '1 turns, ' "$dir/out")" "0|1"
    for term in xterm dumb; do
        TERM=$term talk "seen 1 '^> '; printf 'who are you?\n'; seen 1 'this device'; seen 2 '^> '; printf 'nonsense'; printf '\003'; seen 1 'once more'; seen 3 '^> '; printf '/stats\n'; seen 1 '1 turns'; seen 4 '^> '; printf '\003'; seen 2 'once more'; seen 5 '^> '; printf '\003'; sleep 1" "$short"
        check "Ctrl-C at the prompt clears the line, twice it ends the chat ($term)" "$status|$(grep -c '1 turns, ' "$dir/out")|$(grep -c 'Ctrl-C once more ends' "$dir/out")" "0|1|2"
    done
    for json in "" --json; do
        talk "seen 1 '^> '; printf '%0400d\n' 7; seen 1 'E-GEN-002'; seen 2 '^> '; printf '\004'; sleep 1" "$short $json"
        check "what one question does wrong does not end the chat ($json)" "$status|$(grep -c '^unmask: error: .*E-GEN-002' "$dir/out")|$(grep -c '^{"error":{"id":"E-GEN-002",.*}}' "$dir/out")" "0|$([ $json ] && echo "0|1" || echo "1|0")"
    done
    talk "seen 1 '^> '; kill \$(cat $dir/pid); sleep 1" "$short"; check "SIGTERM at the prompt ends the chat" "$status" 143
    $unmask quantize "$UNMASK_MODEL" "$dir/named.gguf" q8_0 -q --set "general.name=$(printf 'a\033[2Jb')"
    talk "seen 1 '^> '; printf '\004'; sleep 1" "-m $dir/named.gguf"
    check "a name out of a file does not reach the terminal as it is" "$status|$(grep -c '^a\\x1b\[2Jb\.  /help' "$dir/out")" "0|1"
    TERM=dumb talk "seen 1 '^> '; printf 'who are you?\n'; seen 1 'assistant'; seen 2 '^> '; printf '\004'; sleep 1" "$short"
    check "chat on a dumb terminal" "$status|$(grep -c "$esc" "$dir/out")" "0|0"
else
    echo "skipped: the canvas on a terminal (needs script, and no emulator)"
fi
run run "turn on the kitchen light" $short --watch=on
check "a canvas that is asked for keeps off the answer" "$status|$(cat "$dir/out")|$(grep -c 'step 0' "$dir/err")" "0|$light|1"

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
