#!/bin/sh
# AVX-VNNI is not AVX-512: its vpdpbusd is VEX-encoded (first byte c4; the AVX-512 form starts with 62), and no zmm, mask
# or upper ymm register appears.  Few machines can run it, so the object file is read.
#   check_vex.sh OBJECT
objdump -d "$1" | awk -v object="$1" -F '\t' '
    $3 ~ /vpdpbusd/ { n++; if ($2 !~ /^c4 /) bad = $0 }
    $3 ~ /zmm|%k[0-7]|ymm(1[6-9]|2[0-9]|3[01])/ { bad = $0 }
    END {
        if (bad) { print "FAIL  " object ": not AVX-VNNI: " bad; exit 1 }
        if (!n) { print "FAIL  " object ": no vpdpbusd"; exit 1 }
        print "ok    " object ": " n " vpdpbusd, all VEX-encoded"
    }'
