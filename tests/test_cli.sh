#!/bin/sh
# The program as people meet it: what goes where, exit codes, sentences, signals, terminals.
# Commands of their own (quantize, tokenize ...) have their own scripts; here is what all share, and `run`.
build=${UNMASK:-build/unmask}
unmask="$RUNNER $build"
model=models/unmask-demo-6M-v1.0-Q8_0.gguf
tiny=tests/data/checkpoints/llada-tiny
passed=0; failed=0
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
export UNMASK_MODEL="$model" XDG_CONFIG_HOME="$dir/none"
unset NO_COLOR

# run ARGS...: run the program, keep its standard output, standard error and status
run() { $unmask "$@" >"$dir/out" 2>"$dir/err" </dev/null; status=$?; }
ok() { passed=$((passed + 1)); }
bad() { failed=$((failed + 1)); echo "$1: status $status"; sed 's/^/  out: /' "$dir/out" | head -n 20; sed 's/^/  err: /' "$dir/err" | head -n 20; }
# expect NAME STATUS OUT ERR: patterns (extended regular expressions); "-" = must be empty, "*" = anything
matches() { case $2 in -) [ ! -s "$1" ] ;; '*') true ;; *) grep -aEq -- "$2" "$1" ;; esac; }
expect() { if [ "$status" -eq "$2" ] && matches "$dir/out" "$3" && matches "$dir/err" "$4"; then ok; else bad "$1"; fi; }
# an error: nothing on standard output, one line on standard error that ends with its id
refused() {
    if [ "$status" -eq "$2" ] && [ ! -s "$dir/out" ] && [ "$(wc -l <"$dir/err")" -eq 1 ] && grep -aEq -- "^unmask: error: .*$3.*\[E-[A-Z]+-[0-9]+\]\$" "$dir/err"
    then ok; else bad "$1"; fi
}
same() { if [ "$2" = "$3" ]; then ok; else failed=$((failed + 1)); echo "$1: \"$2\", need \"$3\""; fi; }

# ---- answers

run run "turn on the kitchen light"
expect "an answer, and nothing else" 0 '^{"device":"kitchen light","action":"on"}$' -
same "one line" "$(wc -l <"$dir/out")" 1
run run -p "turn on the kitchen light";                     expect "--prompt" 0 '^{"device":"kitchen light"' -
echo "turn on the kitchen light" >"$dir/prompt"
run run -p "@$dir/prompt";                                  expect "--prompt @file" 0 '^{"device":"kitchen light"' -
$unmask run - <"$dir/prompt" >"$dir/out" 2>"$dir/err";      status=$?; expect "standard input by -" 0 '^{"device":"kitchen light"' -
$unmask run <"$dir/prompt" >"$dir/out" 2>"$dir/err";        status=$?; expect "standard input by itself" 0 '^{"device":"kitchen light"' -
run run -v "turn on the kitchen light"
expect "summary" 0 '^{"device"' '^unmask: [0-9]+ steps, [0-9]+ tokens in [0-9.]+ s, .* peak memory [0-9.]+ MiB, [a-z0-9_]+, seed 0$'
run run --stop '"action"' "turn on the kitchen light";      same "--stop cuts" "$(cat "$dir/out")" '{"device":"kitchen light",'
run run --json "turn on the kitchen light"
expect "--json" 0 '^\{"text":"\{\\"device\\":\\"kitchen light\\",\\"action\\":\\"on\\"\}","ids":\[[0-9,]+\],"finish_reason":"stop","usage":\{"prompt_tokens":[0-9]+,"completion_tokens":[0-9]+,"total_tokens":[0-9]+\},"x_diffusion":\{"steps":[0-9]+,.*"blocks":[0-9]+,"seed":0,"ms_total":[0-9.]+,"confidence_min":0\.[0-9]+' -

ids=182,368,432,98,234,153,401,476,289,230
run run -m "$tiny" --prompt-ids $ids --gen-length 16 --block-length 8 --steps 8 --early-stop off --json --trace "$dir/trace"
expect "ids without a tokenizer" 0 '"ids":\[225,5,5,331,330,253,140,140,140,140,140,338,140,299,140,140\],"finish_reason":"length","usage":\{"prompt_tokens":10,' -
same "a line for the start and for each step" "$(wc -l <"$dir/trace")" 9
same "step 0" "$(head -n 1 "$dir/trace")" '{"step":0,"canvas":[182,368,432,98,234,153,401,476,289,230,500,500,500,500,500,500,500,500,500,500,500,500,500,500,500,500],"committed":[],"confidence":[]}'
same "every step commits" "$(grep -c '"committed":\[[0-9]*,[0-9]*\],"confidence":\[0\.[0-9]*,0\.[0-9]*\]}' "$dir/trace")" 8
run run -m "$tiny" --prompt-ids $ids --gen-length 16 --block-length 8 --steps 8 --early-stop off
same "ids in, ids out" "$(cat "$dir/out")" "225 5 5 331 330 253 140 140 140 140 140 338 140 299 140 140"
for set in scalar auto; do for t in 1 2; do
    run run -m "$tiny" --prompt-ids $ids --gen-length 16 --temperature 0.8 --seed 7 --isa $set -t $t; cat "$dir/out" >>"$dir/same"
done; done
same "one answer for every set and number of threads" "$(sort -u "$dir/same" | wc -l)" 1

if [ -n "$RUNNER" ]; then                       # an emulator shows that the program runs; the rest does not depend on the CPU
    echo "$passed passed, $failed failed"; [ "$failed" -eq 0 ]; exit
fi

# ---- commands and help

run;                            expect "no arguments" 2 - 'unmask run'
run --help;                     expect "help" 0 'Commands:' -
run -h;                         expect "help by -h" 0 'Commands:' -
run help help;                  expect "help of help" 0 'Commands:' -
run help run;                   expect "help of a command" 0 '\[diffusion\.gen_length\]' -
run run --garbage --help;       expect "help after garbage" 0 'Usage: unmask run' -
run quantise --help;            expect "help after an unknown command" 0 'Commands:' -
run --version;                  expect "version" 0 '^unmask [0-9]+\.[0-9]+\.[0-9]+$' -
run version
libraries=$(sed -n '/^SLEEF/,$s/^\([^ ]*\)  *\(.*\)/"\1":"\2"/p' "$dir/out" | paste -sd , -)
run version --json;             expect "its libraries as JSON" 0 "\"libraries\":\{$libraries\}\}\$" -
mkdir -p "$dir/broken/unmask"; echo 'nonsense: [' >"$dir/broken/unmask/config.yaml"
for words in version --version "version --json" "run --version" "help --version"; do
    XDG_CONFIG_HOME=$dir/broken UNMASK_COMPUTE_THREADS=many $unmask $words >"$dir/out" 2>"$dir/err"; status=$?
    expect "$words, whatever the settings are" 0 'unmask [0-9]|"version":"[0-9]' -
done
run version foo;                refused "version takes no argument" 2 'found foo'
run quantise;                   refused "a command misspelled" 2 'quantise.*Did you mean `unmask quantize`\?'
run help quantise;              refused "help of none" 2 'Did you mean `unmask quantize`\?'
run help --bogus;                 refused "help of an option" 2 '--bogus'
run 'a
b';                             refused "a command with a line end" 2 'a\\x0ab'
for c in $($unmask --help | sed -n '/^Commands:/,/^$/s/^  \([a-z]*\) .*/\1/p'); do
    run "$c" -h;                expect "$c -h" 0 "^Usage: unmask $c" -
    run "$c" --version;         expect "$c --version" 0 '^unmask [0-9]' -
    run "$c" x --version;       expect "$c x --version" 0 '^unmask [0-9]' -
    run "$c" --nonsense;        refused "$c --nonsense" 2 'unknown flag \(--nonsense\)'
done

# ---- flags

for c in run chat infill forward eval; do run $c -h; expect "$c has -v" 0 '^  -v, --verbose' -; done
for c in quantize inspect verify plan tokenize detokenize bench version; do run $c -v x; refused "$c has no summary" 2 'unknown flag \(-v\)'; done
run infill --gen-length 8 'a [[2]]';     refused "holes say how long they are" 2 'unknown flag \(--gen-length\)'
run infill --early-stop off 'a [[2]]';   refused "and are all filled" 2 'unknown flag \(--early-stop\)'
run run --step 4 x;             refused "a flag misspelled" 2 '--step\).*Did you mean --steps\?'
run run x --gen-length;         refused "a flag without value" 2 '--gen-length'
run run --steps= x;             refused "an empty value" 2 '--steps'
run run a b;                    refused "two prompts" 2 'Put the prompt in quotes'
run run -v -n 8 --seed 1 --seed 2 x; expect "a flag twice" 0 '*' '--seed was given 2 times; the last one counts'
for v in 0x4 4x -1 257 99999999999 ' 4' ''; do
    run run -t "$v" x;          refused "--threads '$v'" 2 '--threads'
done
run run -t 0 -n 8 x;                 expect "--threads 0" 0 '.' -
if [ "$(getconf _NPROCESSORS_ONLN)" -lt 60 ]; then
    run run -t 256 -n 8 x;           expect "--threads 256" 0 '.' 'note: --threads 256: [0-9]+ are used, 4 per core'
fi
for v in 18446744073709551616 -2 text; do run run --seed $v x; refused "--seed $v" 2 '--seed.*-1 for a random one'; done
run run --seed 18446744073709551615 -n 8 --json -n 8 x;          expect "the largest seed" 0 '"seed":18446744073709551615' -
run run --seed -1 -n 8 --json -n 8 x; first=$(sed 's/.*"seed":\([0-9]*\).*/\1/' "$dir/out")
run run --seed -1 -n 8 --json -n 8 x; if grep -q "\"seed\":$first," "$dir/out"; then bad "random seeds differ"; else ok; fi
for v in nan inf -0.1 2.5 true ''; do run run "--temperature=$v" x; refused "--temperature=$v" 2 '--temperature'; done
for v in nan -0.1 0 1.1; do run run --threshold $v x; refused "--threshold $v" 2 '--threshold.*from 1e-06 to 1'; done
for v in -1 1e9; do run run --cfg-scale $v x; refused "--cfg-scale $v" 2 '--cfg-scale.*from 0 to 100'; done
for f in --steps --gen-length --block-length; do for v in 0 -1 2147483648; do run run $f $v x; refused "$f $v" 2 "$f.*from 1 to"; done; done
for v in 1 3; do run run -n $v "who are you?"; expect "-n $v" 0 '.' -; done
run run -n 3000 "who are you?"; expect "more than the context" 0 '.' 'note: answer cut to [0-9]+ positions: [0-9]+ prompt tokens, and a context of 256'
run run --gen-length 20 --block-length 64 --steps 20 "who are you?";    expect "a block longer than the answer" 0 '.' -
run run --gen-length 20 --block-length 7 --steps 9 "who are you?";      expect "lengths that do not divide" 0 '.' -
run run --gen-length 8 --steps 64 --json "who are you?";    expect "more steps than positions" 0 '"ids"' -
run run --threshold 0.9 --factor 1 x;                       refused "two rules" 2 '--threshold, --factor'
run run --raw --system x y;                                 refused "raw with a system message" 2 '--raw, --system'
run run -v -q x;                                            refused "verbose and quiet" 2 '--verbose, --quiet'
run run --stop '' x;                                        refused "an empty stop" 2 '--stop'
run run --isa sse9 x;                                       refused "an unknown set" 2 'sse9'
case $(uname -m) in x86_64) other=neon ;; *) other=avx2 ;; esac
run run --isa $other x;                                     refused "a set of another CPU" 2 "$other"

sets=$($unmask run -h | sed -n 's/^ *--isa SET *\([a-z0-9, ]*\) .*/\1/p' | tr -d ' ')
same "sets of the help and of the settings" "$(sed -n '/^  isa:/s/.*# //p' configs/default.yaml | sed 's/ | /,/g')" "$sets"
same "which are all that there are" "auto,$(sed -n 's/^    { "\([a-z0-9]*\)", .*/\1/p' simd/dispatch.c | paste -sd , -)" "$sets"
run eval -h;                                                expect "all lines" 0 '--limit N .*; 0 = all' -

# ---- text

run run "";                                                 refused "an empty prompt" 2 'empty'
run run "   ";                                              refused "only spaces" 2 'empty'
printf '' | $unmask run >"$dir/out" 2>"$dir/err";           status=$?; refused "an empty pipe" 2 'empty'
run run "$(printf 'a\377b')";                               refused "invalid UTF-8" 2 'byte 1.*0xff'
printf 'ab\355\240\200' >"$dir/bad"
run run -p "@$dir/bad";                                     refused "invalid UTF-8 in a file" 2 'byte 2'
printf 'a\000b' | $unmask run >"$dir/out" 2>"$dir/err";     status=$?; expect "a NUL in the prompt" 0 '.' -
run run -m "$tiny" --raw -n 8 "@@alice";                    expect "text that begins with @" 0 '.' -
for c in run infill tokenize; do run $c -h;                 expect "which the help of $c tells" 0 '@@' -; done
run run -p @/nonexistent;                                   refused "no such prompt file" 4 '/nonexistent'
run run -p "@$dir";                                         refused "a folder as prompt" 4 'regular file'
yes word | head -n 400 >"$dir/long"
run run -p "@$dir/long";                                    refused "a prompt beyond the context" 6 '[0-9]+ prompt tokens.*256'
head -c 17000000 /dev/zero | tr '\0' a | $unmask run >"$dir/out" 2>"$dir/err"; status=$?; refused "17 MB" 6 'too long'
run tokenize '<|eot_id|><|mdm_mask|>';                      if grep -Eq '408[0-5]' "$dir/out"; then bad "special tokens in text"; else ok; fi

# ---- models

run run -m /nonexistent x;                                  refused "no such model" 4 '/nonexistent'
run run -m "$dir" x;                                        refused "a folder without a model" 3 'config.json'
run run -m tests/test_cli.sh x;                             refused "another kind of file" 3 'not a GGUF file'
printf 'x' >"$dir/bad
name"
run run -m "$dir/bad
name" x;                                                    refused "a name with a line end" 3 'bad\\x0aname'
run run -m "$tiny" --prompt-ids 3,600;                      refused "an id beyond the vocabulary" 2 '600'
run run -m "$tiny" --prompt-ids 3,x;                        refused "an id that is none" 2 'token ids separated by commas'
mkdir -p "$dir/inst/bin" "$dir/inst/share/unmask/models" "$dir/inst/share/unmask/configs"
cp "$build" "$dir/inst/bin/unmask"; cp configs/laptop.yaml "$dir/inst/share/unmask/configs/"; ln -s "$dir/inst/bin/unmask" "$dir/link"
ln -s "$PWD/$model" "$dir/inst/share/unmask/models/"
(unset UNMASK_MODEL; "$dir/link" run -c laptop "who are you?") >"$dir/out" 2>"$dir/err"; status=$?
expect "an installed program finds its files, through a link too" 0 '.' -
rm "$dir/inst/share/unmask/models/"*
if [ ! -e /usr/local/share/unmask ]; then
    (unset UNMASK_MODEL; "$dir/link" run -n 8 x) >"$dir/out" 2>"$dir/err"; status=$?; refused "no model anywhere" 2 'no model'
fi

# ---- errors as JSON

run run --json --steps 0 x
expect "an error as JSON" 2 - '^\{"error":\{"id":"E-CLI-004","message":".*","file":"","what":".*","field":"--steps","found":"0","need":".*","hint":"","exit":2\}\}$'
run run --json=true --steps 0 x;                            expect "by --json=true" 2 - '^\{"error":\{"id":"E-CLI-004"'
run run --json=false --steps 0 x;                           refused "but not by --json=false" 2 '--steps'
run run --json --json=false --steps 0 x;                    refused "of which the last counts" 2 '--steps'
run run --json -m tests/test_cli.sh x;                      expect "with its offset" 3 - '"file":"tests/test_cli.sh".*"exit":3,"offset":0'

# ---- configuration files

printf 'sampling:\n  seed: 3\n' >"$dir/c.yaml"
run run -c "$dir/c.yaml" --json -n 8 x;                          expect "a file" 0 '"seed":3,' -
UNMASK_SAMPLING_SEED=4 $unmask run -c "$dir/c.yaml" --json -n 8 x >"$dir/out" 2>"$dir/err"; status=$?; expect "the environment goes before the file" 0 '"seed":4,' -
UNMASK_SAMPLING_SEED=4 $unmask run -c "$dir/c.yaml" --seed 5 --json -n 8 x >"$dir/out" 2>"$dir/err"; status=$?; expect "the flag goes before both" 0 '"seed":5,' -
mkdir -p "$dir/xdg/unmask" && cp "$dir/c.yaml" "$dir/xdg/unmask/config.yaml"
XDG_CONFIG_HOME=$dir/xdg $unmask run --json -n 8 x >"$dir/out" 2>"$dir/err"; status=$?; expect "the user's file" 0 '"seed":3,' -
XDG_CONFIG_HOME=$dir/xdg $unmask run --no-config --json -n 8 x >"$dir/out" 2>"$dir/err"; status=$?; expect "--no-config" 0 '"seed":0,' -
# The file of all users, below a /etc of our own that a namespace of mounts holds.
everyone() { etc="mount -t tmpfs none /etc && mkdir /etc/unmask && cp $dir/all.yaml /etc/unmask/config.yaml && exec"; unshare -rm sh -c "$etc \"\$@\"" sh $unmask "$@" >"$dir/out" 2>"$dir/err"; status=$?; }
if unshare -rm mount -t tmpfs none /etc 2>/dev/null; then
    printf 'sampling:\n  seed: 7\ndiffusion:\n  gen_length: 16\n' >"$dir/all.yaml"
    everyone run --json x;                                  expect "the file of all users" 0 '"seed":7,' -
    everyone run --no-config --json -n 8 x;                 expect "--no-config leaves it out, too" 0 '"seed":0,' -
    XDG_CONFIG_HOME=$dir/xdg everyone run --early-stop off --json x; expect "the user's file goes before it" 0 '"seed":3,' -
    same "and what that leaves open it says" "$(grep -Ec '"ids":\[([0-9]+,){15}[0-9]+\]' "$dir/out")" 1
    printf 'sampling:\n  sed: 7\n' >"$dir/all.yaml"
    everyone run --json x;                                  expect "an error in it" 2 - '/etc/unmask/config.yaml.*sampling.sed'
else echo "skip: the configuration file of all users: no namespace of mounts may be made here"; fi
printf 'compute:\n  thread: 4\n' >"$dir/c.yaml"
run run -c "$dir/c.yaml" x;                                 refused "an unknown key" 2 'c.yaml: unknown key \(compute.thread, line 2, column 3\).*Did you mean `compute.threads`'
# A value that only the model's work shows to be none is told with its place, too.
refused_in_yaml() {
    printf "$1" >"$dir/c.yaml"; (unset UNMASK_MODEL; $unmask run -c "$dir/c.yaml" x) >"$dir/out" 2>"$dir/err"; status=$?
    refused "$1 in a file" "$2" "$3"
}
refused_in_yaml "compute:\n  isa: $other\n" 2             "c.yaml: not a value of this key \(compute.isa, line 2, column 3\): found $other"
refused_in_yaml 'diffusion:\n  reuse: nothing\n' 2        'c.yaml: not a value of this key \(diffusion.reuse, line 2, column 3\): found nothing'
refused_in_yaml 'diffusion:\n  reuse: balanced,left=x\n' 2 'c.yaml: not a value of this key \(diffusion.reuse, line 2, column 3, left\)'
refused_in_yaml 'memory:\n  # none\n  store: kv\n' 2      'c.yaml: not a value of this key \(memory.store, line 3, column 3\): found kv'
refused_in_yaml 'model:\n  path: /nonexistent\n' 4        '/nonexistent: cannot open \(model.path, line 2, column 3 of .*c.yaml\)'
refused_in_yaml 'model:\n  path: ""\n' 2                  'c.yaml: not a value of this key \(model.path, line 2, column 3\): found an empty path'
refused_in_yaml 'model:\n  path: ~/m.gguf\n' 4            '~/m.gguf: cannot open .*~ is not replaced by the home folder here'
run run '@~/prompt';                                        refused "nor in an argument" 4 '~/prompt: cannot open.*~ is not replaced by the home folder here'
UNMASK_MODEL=/nonexistent run run x;                        refused "the environment's model" 4 'cannot open \(UNMASK_MODEL\)'
UNMASK_DIFFUSION_REUSE=nothing run run x;                   refused "the environment's value" 2 'not a value of this environment variable \(UNMASK_DIFFUSION_REUSE\)'
run run --store kv x;                                       refused "a flag's value" 2 'not a value of this flag \(--store\): found kv'
UNMASK_MEMORY_STORE=hidden run run --store kv x;            refused "a flag's value above others" 2 '\(--store\): found kv'
run run -c "$dir" x;                                        refused "a folder as configuration" 4 'regular file'
run run -m '' x;                                            refused "a model without a name" 2 '--model.: found an empty path'
run run -c nosuch x;                                        refused "a configuration that is none" 4 'nosuch.*Installed are default, laptop, raspberry-pi-4'
run run -c lapto x;                                         refused "one that is misspelled" 4 'lapto: cannot open.*Did you mean `-c laptop`'
run run -c ./lapto x;                                       refused "the path of one" 4 'lapto: cannot open.*spelling of the path'
run run -c '' x;                                            refused "one without a name" 2 '--config\): found an empty name'
run run -c x --no-config y;                                 refused "-c with --no-config" 2 '--config, --no-config'
(unset HOME XDG_CONFIG_HOME; $unmask run -n 8 x) >"$dir/out" 2>"$dir/err"; status=$?; expect "without HOME" 0 '.' -
LC_ALL=de_DE.UTF-8 $unmask run --json --temperature 0.5 -n 8 x >"$dir/out" 2>"$dir/err"; status=$?; expect "another locale" 0 '"confidence_min":0\.' -

# ---- descriptors, pipes, full disks

for c in run "run -" infill chat tokenize "tokenize --jsonl -" detokenize; do
    $unmask $c <&- >"$dir/out" 2>"$dir/err"; status=$?;     refused "$c with standard input closed" 4 'standard input: cannot read: found Bad file descriptor'
done
$unmask run -n 8 x <&- >"$dir/out" 2>"$dir/err";            status=$?; expect "which is not needed" 0 '.' -
: >"$dir/out"
for c in help version "run -n 8 x" "run --json -n 8 x" "tokenize x" "infill a[[1]]"; do
    $unmask $c >&- 2>"$dir/err";                            status=$?; expect "$c with standard output closed" 4 - 'E-CLI-011'
done
echo x | $unmask chat -n 8 >&- 2>"$dir/err";                status=$?; refused "a chat with standard output closed" 4 'cannot write to standard output: found Bad file'
$unmask run -n 8 x >&- 2>&-;                                status=$?; : >"$dir/err"; expect "and standard error" 4 - -
$unmask run -n 8 x 2>&- >"$dir/out";                             status=$?; expect "standard error closed" 0 '.' '*'
if [ -c /dev/full ]; then
    : >"$dir/out"; $unmask run -n 8 x >/dev/full 2>"$dir/err";   status=$?; refused "a full disk" 4 'No space left'
    for c in help version "run -n 8 -- --json"; do $unmask $c >/dev/full 2>"$dir/err"; status=$?; refused "$c on a full disk" 4 'No space left'; done
    for c in "version --json" "run --json -n 8 x"; do
        $unmask $c >/dev/full 2>"$dir/err"; status=$?; expect "$c on a full disk" 4 - '^\{"error":\{"id":"E-CLI-011",.*No space left.*"exit":4\}\}$'
        same "in one line" "$(wc -l <"$dir/err")" 1
    done
fi
{ $unmask run -n 8 x 2>"$dir/err"; echo $? >"$dir/status"; } | true
status=$(cat "$dir/status"); : >"$dir/out";                 expect "a reader that goes away" 0 - -
if (ulimit -n 8) 2>/dev/null; then
    (ulimit -n 8; $unmask run -n 8 x) >"$dir/out" 2>"$dir/err";  status=$?; expect "8 descriptors" 0 '.' -
fi
case $build$RUNNER in *san*|*qemu*) ;; *)
    if (ulimit -s 64) 2>/dev/null; then
        (ulimit -s 64; $unmask run -n 8 x) >"$dir/out" 2>"$dir/err";  status=$?; expect "a stack of 64 KiB" 5 - 'found 64 KiB, need 256 KiB.*E-RUN-005'
    fi ;;
esac
case $build in *san*) ;; *)
    (ulimit -v 60000; $unmask run -t 1 -n 8 x) >"$dir/out" 2>"$dir/err"; status=$?
    if [ $status -eq 0 ] || { [ $status -eq 5 ] && grep -q 'E-MEM-00' "$dir/err"; }; then ok; else bad "60 MB of address space"; fi ;;
esac

case $build in *san*) ;; *)                     # the sanitizer needs a thread of its own
    limited="prlimit --nproc=1"; [ "$(id -u)" -ne 0 ] || limited="setpriv --reuid 65534 --clear-groups $limited"
    if $limited $unmask version >"$dir/out" 2>"$dir/err"; then
        $limited $unmask run -t 4 -n 8 x >"$dir/out" 2>"$dir/err"; status=$?
        expect "threads that the system refuses" 0 '.' '^unmask: note: 1 of 4 threads; the system refused more$'
        $limited $unmask run -q -t 4 -n 8 x >"$dir/out" 2>"$dir/err"; status=$?; expect "the same with -q" 0 '.' -
    fi ;;
esac

# ---- signals: long work is stopped, what there is stays, the status tells

slow="--raw --gen-length 32 --block-length 32 --steps 32 --isa scalar -t 1 --early-stop off"      # a step takes tenths of a second everywhere
# --foreground: without it timeout signals its group as well, and a second signal ends the program at once.
stop() { timeout --foreground --preserve-status -s "$1" "$2" $unmask run $slow "Once upon a time" --trace "$dir/stopped" >"$dir/out" 2>"$dir/err"; status=$?; }
stop INT 1;                                                 expect "SIGINT" 130 '*' -
same "what there was, as a line" "$(wc -l <"$dir/out")" 1
stop TERM 1;                                                expect "SIGTERM" 143 '*' -
sleep 3 | timeout --foreground --preserve-status -s INT 0.3 $unmask run >"$dir/out" 2>"$dir/err"; status=$?; expect "SIGINT while reading the prompt" 130 - -
same "nothing half-written stays" "$(find "$dir" -name '*stopped*' ! -name stopped | wc -l)" 0

# ---- terminals (a pseudo-terminal by script(1), where there is one)

escape=$(printf '\033')
if command -v script >/dev/null; then
    # on_terminal ENVIRONMENT COLUMNS ARGS...: what a terminal of so many columns receives
    on_terminal() {
        environment=$1; columns=$2; shift 2; words=
        for w in "$@"; do words="$words '$w'"; done
        script -qec "stty cols $columns rows 24; env $environment $unmask $words" /dev/null </dev/null >"$dir/out" 2>"$dir/err"; status=$?
    }
    on_terminal "TERM=xterm LC_ALL=C.UTF-8" 80 run "who are you?"
    expect "the canvas on a terminal" 0 'step 1.*masked' -
    if grep -q '░' "$dir/out" && grep -q "$escape\[" "$dir/out"; then ok; else bad "masks are drawn"; fi
    on_terminal "TERM=xterm NO_COLOR=1" 80 run -n 16 "who are you?"
    if [ $status -eq 0 ] && ! grep -Eq "$escape\[[0-9;]*m" "$dir/out"; then ok; else bad "NO_COLOR"; fi
    for e in "TERM=dumb"; do
        on_terminal "$e" 80 run -q -n 16 "who are you?"
        if [ $status -eq 0 ] && ! grep -q "$escape" "$dir/out"; then ok; else bad "$e"; fi
    done
    on_terminal "TERM=xterm" 80 run -q --watch off --color off -n 16 "who are you?"
    if [ $status -eq 0 ] && ! grep -q "$escape" "$dir/out"; then ok; else bad "--watch off"; fi
    on_terminal "TERM=xterm" 80 run -q --json -n 16 "who are you?"
    if [ $status -eq 0 ] && ! grep -q "$escape" "$dir/out"; then ok; else bad "--json on a terminal"; fi
    for columns in 1 2 3 7 20 200; do on_terminal "TERM=xterm" $columns run -n 12 "who are you?"; expect "$columns columns" 0 '.' -; done
fi
run run --color auto --watch auto -n 16 "who are you?"
if grep -q "$escape" "$dir/out" "$dir/err"; then bad "escape codes off a terminal"; else ok; fi

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
