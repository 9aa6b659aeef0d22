#!/bin/sh
# What `make bench` shows: machine and instruction sets, the matrix products alone, and passes of the
# embedded model and of random weights in the 0.5B and the 8B shape, as far as memory goes.
#   tests/bench.sh BUILD
cd "$(dirname "$0")/.." || exit 1
. tests/bench_files.sh
unmask=${1:-build}/unmask
"$unmask" version
trap 'rm -f "$file"' EXIT INT TERM
"$unmask" bench --no-config --kernels || exit 1
"$unmask" bench --no-config --tokens 16,64,256 || exit 1
for shape in 0.5b llada-8b; do
    file=$(bench_file "$unmask" "$shape" q4_0) || { echo "$shape: skipped, not enough memory or disk"; continue; }
    "$unmask" bench --no-config -m "$file" --tokens 32,128,512 || exit 1
    rm -f "$file"
done
