#!/bin/sh
# Every #include "x.h" must point down the list of tests/layers.txt, so that includes run one way and without a circle.
# A .c file stands where the list names it, else with the header of its own name; one that has no place is an error.
# A function NAME_x that NAME.h declares is not defined in the .c file of another header (unmask.h's may be anywhere).
# And no line is longer than 140 characters.
cd "$(dirname "$0")/.." || exit 1
awk '
    function say(what) { print FILENAME ":" FNR ": " what; bad = 1 }
    FILENAME ~ /layers.txt$/ { if ($0 !~ /^#/) for (i = 1; i <= NF; i++) rank[$i] = ++n; next }
    FNR == 1 {
        parts = split(FILENAME, p, "/"); header = me = p[parts]; sub(/\.c$/, ".h", header)
        mine = me in rank ? rank[me] : header in rank ? rank[header] : 0
        if (!mine) say("neither " me " nor a header of its name is in tests/layers.txt")
        checked++
        name = header; sub(/\.h$/, "", name)
    }
    /^[a-z]/ && !/^(static|typedef) / && match($0, /[a-z0-9_]+\(/) {
        it = substr($0, RSTART, RLENGTH - 1)
        if (me == header) { if (index(it, name "_") == 1 && name != "unmask") owner[it] = name }
        else if (header in rank) defined[it] = name
    }
    length($0) > 140 { say("a line of " length($0) " characters, at most 140 are wanted") }
    /^[ \t]*#[ \t]*include "/ {
        split($0, q, "\""); it = q[2]; sub(/^.*\//, "", it)
        if (!(it in rank)) say(it " is not in tests/layers.txt")
        else if (it != header && rank[it] >= mine) say("may not include " it " (it stands higher)")
    }
    END {
        for (it in defined)
            if (it in owner && index(defined[it] "_", owner[it] "_") != 1) {
                print defined[it] ".c: " it "() belongs in " owner[it] ".c"; bad = 1
            }
        if (!bad) print checked " files in layer order"
        exit bad
    }
' tests/layers.txt src/*.[ch] simd/*.[ch] quant/*.[ch] include/*.h
