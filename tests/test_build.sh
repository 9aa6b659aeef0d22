#!/bin/sh
# What the Makefile makes: where an installed program looks for its files.
cd "$(dirname "$0")/.." || exit 1
passed=0; failed=0
dir=$(mktemp -d) && trap 'rm -rf "$dir"' EXIT

check() { if [ "$2" = "$3" ]; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "$1: \"$2\", need \"$3\""; fi; }

# One object of a build of its own, made for one PREFIX and then for another.
datafiles=$dir/build/src/datafiles.o
for prefix in /aaa /bbb; do
    MAKEFLAGS= make -s BUILD="$dir/build" PREFIX=$prefix "$datafiles" >"$dir/out" 2>&1 || cat "$dir/out"
    check "PREFIX=$prefix" "$(grep -o '/[ab]*/share/unmask' -a "$datafiles" | sort -u)" "$prefix/share/unmask"
done
before=$(date -r "$datafiles" +%s.%N)
MAKEFLAGS= make -s BUILD="$dir/build" PREFIX=/bbb "$datafiles" >"$dir/out" 2>&1 || cat "$dir/out"
check "the same PREFIX makes nothing anew" "$(date -r "$datafiles" +%s.%N)" "$before"

echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
