#!/bin/sh
# Run every test program and test script of a build; show the output of those that fail; end with "N passed, N failed".
#   run_tests.sh BUILD_FOLDER [RUNNER...]       RUNNER (e.g. an emulator) goes before each program
build=$1; shift
cd "$(dirname "$0")/.." || exit 1
log=$build/tests/log; passed=0; failed=0
export UNMASK="$build/unmask" RUNNER="$*"

# count NAME STATUS: add what the log says; a test that died without a count is one failure
count() {
    p=$(sed -n 's/.*\[  PASSED  \] \([0-9]*\) test.*/\1/p; s/^\([0-9]*\) passed, [0-9]* failed.*/\1/p' "$log" | tail -n 1)
    f=$(sed -n 's/.*\[  FAILED  \] \([0-9]*\) test.*/\1/p; s/^[0-9]* passed, \([0-9]*\) failed.*/\1/p' "$log" | tail -n 1)
    : "${p:=0}" "${f:=0}"
    [ "$2" -ne 0 ] && [ "$f" -eq 0 ] && f=1
    [ "$2" -eq 0 ] && [ "$p" -eq 0 ] && { f=1; echo "$1 ran no test" >>"$log"; }
    passed=$((passed + p)); failed=$((failed + f))
    if [ "$f" -eq 0 ]; then echo "ok    $1  ($p)"; else echo "FAIL  $1"; sed 's/^/      /' "$log"; fi
    grep -i '^skip' "$log" | sed 's/^/      /'
}

for t in "$build"/tests/test_* "$build"/tests/checkasm; do
    case $t in *.d|*.o) continue ;; esac
    [ -x "$t" ] || continue
    "$@" "$t" >"$log" 2>&1
    count "$(basename "$t")" $?
done
for t in tests/test_*.sh tests/check_layers.sh; do
    [ -f "$t" ] || continue
    case $t in *check_layers.sh) sh "$t" >"$log" 2>&1; s=$?; [ $s -eq 0 ] && echo "1 passed, 0 failed" >>"$log"; count "$(basename "$t")" $s; continue ;; esac
    sh "$t" >"$log" 2>&1
    count "$(basename "$t")" $?
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
