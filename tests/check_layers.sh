#!/bin/sh
# Every #include "x.h" must point down the list of tests/layers.txt, so that includes run one way and without a circle.
# A .c file ranks with the header of its own name; one without such a header (main.c, cmd_*.c, q8_0.c ...) ranks by what
# it implements: the last line for the public face and the programs, its folder's lowest header otherwise, which it must include first.
cd "$(dirname "$0")/.." || exit 1
awk '
    FILENAME ~ /layers.txt$/ { if ($0 !~ /^#/) for (i = 1; i <= NF; i++) rank[$i] = ++n; next }
    FNR == 1 {
        parts = split(FILENAME, p, "/"); me = p[parts]; header = me; sub(/\.c$/, ".h", header)
        mine = header in rank ? rank[header] : me ~ /\.h$/ ? -1 : 0
        if (me ~ /^(main|unmask|cmd_.*)\.c$/) mine = n + 1
        if (mine < 0) { print FILENAME ": not in tests/layers.txt"; bad = 1 }
        checked++
    }
    /^[ \t]*#[ \t]*include "/ {
        split($0, q, "\""); it = q[2]; sub(/^.*\//, "", it)
        if (!(it in rank)) { print FILENAME ":" FNR ": " it " is not in tests/layers.txt"; bad = 1 }
        else if (it != header && mine > 0 && rank[it] >= mine) { print FILENAME ":" FNR ": may not include " it " (it stands higher)"; bad = 1 }
    }
    END { if (!bad) print checked " files in layer order"; exit bad }
' tests/layers.txt src/*.[ch] simd/*.[ch] quant/*.[ch] include/*.h
