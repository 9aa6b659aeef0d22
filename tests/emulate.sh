#!/bin/sh
# Run the tests on emulated CPUs: each instruction set where the CPU has it, and its refusal where it has not.
#   emulate.sh BUILD                    BUILD: this machine's build; BUILD/arm: the one for AArch64 (make test-arm makes both)
#   emulate.sh BUILD CPU PROGRAM        one job alone, as the failures name them
# A job is one program on one CPU; as many run at a time as there are cores.  An illegal instruction is a failure: either
# the choice of kernels is wrong or a file uses instructions that it must not.
set -u
cd "$(dirname "$0")/.." || exit 1
build=$1

# CPU, its machine, kernels that checkasm checks, sets that must run, sets that must be refused, other test programs
# (PROGRAM:TEST for one test of it: emulation is slow, and the stored hash is what sets are compared by).  AVX-512 is not
# emulated, and masked AVX loads are emulated as full ones: hence --slack.  `every` leaves out what takes many minutes and
# asks nothing of the CPU: failing writes, and calibration, whose bytes a command compares.  The a64fx is an ARMv8.2 without
# dotprod; Nehalem has no AVX.
cpus='
cortex-a72   | arm | *                 | scalar neon | dotprod i8mm | every
cortex-a76   | arm | dotprod/*         | dotprod     | i8mm         | test_golden:logits_hash
max,sve=off  | arm | i8mm/*            | i8mm        |              | test_golden:logits_hash
a64fx        | arm | none              |             | dotprod i8mm |
max          | x86 | * --slack 32      | scalar avx2 |              | test_golden:logits_hash
max,avx2=off | x86 | none              |             | scalar avx2  | refusal
Nehalem      | x86 | none              |             | scalar avx2  | refusal
'
commands=tests/emulated_commands.txt

# field CPU N: column N of a CPU's line
field() { echo "$cpus" | awk -F ' *[|] *' -v cpu="$1" -v n="$2" '$1 == cpu { print $n }'; }
command_line() { grep -v '^#' $commands | sed -n "${1}p"; }

complain() { echo "$*" >>"$log.bad"; }

check_kernels() {
    set -f                              # the patterns are checkasm's
    $run "$from/tests/checkasm" --only $(field "$cpu" 3) >"$log" 2>&1 || complain "exit status $?"
    for set in $(field "$cpu" 4); do grep -q "^ok   $set/" "$log" || complain "$set did not run"; done
    for set in $(field "$cpu" 5); do grep 'this CPU lacks' "$log" | grep -qw "$set" || complain "$set was not refused"; done
}

check_program() {
    only=
    [ "$program" = "${program%%:*}" ] || only="--only ${program#*:}"
    $run "$from/tests/${program%%:*}" $only >"$log" 2>&1 || complain "exit status $?"
    grep -q '\[  PASSED  \] [1-9]' "$log" || complain "no test passed"
}

# What a command prints, and what it writes to the file called OUT in its line, is the same as on this machine.
check_command() {
    line=$(command_line "${program#command-}")
    rm -f "$log".*.npy
    eval "set -- $(echo "$line" | sed "s:OUT:$log.here.npy:")"
    "$build/unmask" "$@" >"$log.here" 2>"$log" || complain "exit status $? on this machine"
    eval "set -- $(echo "$line" | sed "s:OUT:$log.there.npy:")"
    $run "$from/unmask" "$@" >"$log.there" 2>>"$log" || complain "exit status $?"
    cmp "$log.here" "$log.there" >>"$log" 2>&1 || complain "it prints something else than on this machine"
    [ ! -f "$log.here.npy" ] || cmp "$log.here.npy" "$log.there.npy" >>"$log" 2>&1 || complain "other numbers than on this machine"
}

# A CPU on which nothing runs gets a sentence, not a crash.
check_refusal() {
    $run "$from/unmask" version >"$log" 2>&1 || complain "exit status $? of version"
    $run "$from/unmask" forward --ids 1 >>"$log" 2>&1
    [ $? -eq 6 ] && grep -q 'E-RUN-002' "$log" || complain "not refused with a sentence"
}

job() {
    cpu=$1 program=$2 log=$build/emulated/$1-$2
    case $(field "$cpu" 2) in
    arm) from=$build/arm run="qemu-aarch64-static -L /usr/aarch64-linux-gnu -cpu $cpu" ;;
    x86) from=$build run="qemu-x86_64-static -cpu $cpu" ;;
    *)   echo "no such CPU: $cpu"; return 2 ;;
    esac
    mkdir -p "$build/emulated" && rm -f "$log.bad"
    case $program in
    checkasm)  check_kernels ;;
    command-*) check_command ;;
    refusal)   check_refusal ;;
    *)         check_program ;;
    esac
    [ -f "$log.bad" ] || { echo "ok    $cpu  $program"; return 0; }
    echo "FAIL  $cpu  $program: $(tr '\n' ';' <"$log.bad")  (again: tests/emulate.sh $build $cpu $program)"
    sed 's/^/      /' "$log"
    return 1
}

# All jobs, as lines of CPU and program; the slow ones first, so that the cores end together.
jobs() {
    for cpu in $(echo "$cpus" | awk '{ print $1 }'); do echo "$cpu checkasm"; done
    for cpu in $(echo "$cpus" | awk '{ print $1 }'); do
        for program in $(field "$cpu" 6); do
            [ "$program" != every ] || program=$(for t in tests/test_*.c; do basename "$t" .c; done | grep -v -x 'test_faults\|test_calibrate')
            for p in $program; do echo "$cpu $p"; done
        done
        [ -n "$(field "$cpu" 4)" ] || continue
        for n in $(seq "$(grep -vc '^#' $commands)"); do echo "$cpu command-$n"; done
    done
}

if [ $# -eq 3 ]; then
    job "$2" "$3"
    exit
fi
jobs | xargs -P "$(nproc)" -n 2 "$0" "$build"
status=$?
if [ -f simd/avxvnni.c ] && [ -f "$build/simd/avxvnni.o" ]; then
    tests/check_vex.sh "$build/simd/avxvnni.o" || status=1
fi
exit $status
