#!/bin/sh
# What the Makefile makes: the library alone, what is installed, and where an installed program looks for its files.
cd "$(dirname "$0")/.." || exit 1
unmask=${UNMASK:-build/unmask} passed=0; failed=0
dir=$(mktemp -d) && trap 'rm -rf "$dir"' EXIT

check() { if [ "$2" = "$3" ]; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "$1: \"$2\", need \"$3\""; fi; }

# The library: what unmask.h declares and no more, without what only the program needs, and needing nothing of the program.
library=$(dirname "$unmask")/libunmask.so
readelf -d "$library" >"$dir/dynamic"; nm -D "$library" >"$dir/symbols"
check "other libraries" "$(grep -c 'NEEDED.*lib\(nettle\|yaml\|edit\)' "$dir/dynamic")|$(grep -c 'NEEDED.*libjansson' "$dir/dynamic")" "0|1"
minor=$(sed -n 's/.*UNMASK_VERSION "\([0-9]*\.[0-9]*\)\..*/\1/p' include/unmask.h)
check "the name that programs ask for" "$(sed -n 's/.*(SONAME).*\[\(.*\)\]/\1/p' "$dir/dynamic")" "libunmask.so.$minor"
awk '$2 == "T" { print $3 }' "$dir/symbols" | sort >"$dir/offered"
grep -v '^typedef' include/unmask.h | grep -o '^[a-z].*[ *]unmask_[a-z_]*(' | grep -o 'unmask_[a-z_]*' | sort >"$dir/declared"
check "what it offers" "$(comm -3 "$dir/offered" "$dir/declared")" ""
awk '$1 == "U" { print $2 }' "$dir/symbols" | sort >"$dir/needed"
nm "$unmask" | awk '$2 ~ /[TtDdBbRr]/ { print $3 }' | sort -u >"$dir/program"
check "the program is there" "$(grep -c '^main$' "$dir/program")" 1
check "what it needs of the program" "$(comm -12 "$dir/needed" "$dir/program")" ""

# What is installed: the archive offers as much, so that a program may give its functions names that the library has inside.
build=$(dirname "$unmask") prefix=$(cat "$(dirname "$unmask")/prefix")
MAKEFLAGS= make -s BUILD="$build" PREFIX="$prefix" DESTDIR="$dir/root" install >"$dir/out" 2>&1 || cat "$dir/out"
archive=$dir/root$prefix/lib/libunmask.a include=$dir/root$prefix/include
nm "$archive" | awk '$2 ~ /[A-TV-Z]/ && NF == 3 { print $3 }' | sort >"$dir/offered"
check "what the archive offers" "$(comm -3 "$dir/offered" "$dir/declared")" ""
check "a name of its own" "$(nm "$archive" | grep -c ' t multiply$')" 1
cat >"$dir/program.c" <<'END'
#include <stdio.h>
#include <unmask.h>
int multiply(int a, int b);
int multiply(int a, int b) { return a * b; }
int main(int argc, char **argv)
{
    struct unmask_model *m;
    struct unmask_err err;
    if (argc != 2 || !unmask_open(&m, argv[1], NULL, &err)) return 1;
    unmask_close(m);
    return printf("%d\n", multiply(6, 7)) != 3;
}
END
sanitizers=$(nm "$archive" | grep -q __asan_init && echo -fsanitize=address,undefined)
libs=$(PKG_CONFIG_PATH=$dir/root$prefix/lib/pkgconfig pkg-config --static --libs unmask | sed 's/-lunmask//')
${CC:-cc} -o "$dir/program" -I"$include" "$dir/program.c" "$archive" $libs $sanitizers >"$dir/out" 2>&1 || cat "$dir/out"
check "a program with that name" "$("$dir/program" models/unmask-demo-6M-v1.0-Q8_0.gguf)" 42

# One object of a build of its own, made for one PREFIX and then for another.
datafiles=$dir/build/src/datafiles.o
for prefix in /aaa /bbb; do
    MAKEFLAGS= make -s BUILD="$dir/build" PREFIX=$prefix "$datafiles" >"$dir/out" 2>&1 || cat "$dir/out"
    check "PREFIX=$prefix" "$(grep -o '/[ab]*/share/unmask' -a "$datafiles" | sort -u)" "$prefix/share/unmask"
done
before=$(date -r "$datafiles" +%s.%N)
MAKEFLAGS= make -s BUILD="$dir/build" PREFIX=/bbb "$datafiles" >"$dir/out" 2>&1 || cat "$dir/out"
check "the same PREFIX makes nothing anew" "$(date -r "$datafiles" +%s.%N)" "$before"

# What pkg-config is told, by the line of `make install` that writes it.
mkdir -p "$dir/to/opt/lib/pkgconfig"
MAKEFLAGS= make -n BUILD="$dir/build" PREFIX=/opt DESTDIR="$dir/to" install | sed -n '/^[[:blank:]]*printf /,/unmask.pc$/p' | sh
pc() { PKG_CONFIG_PATH=$dir/to/opt/lib/pkgconfig ${PKG_CONFIG:-pkg-config} "$@" unmask; }
check "folders" "$(pc --variable=exec_prefix) $(pc --variable=libdir) $(pc --variable=includedir)" "/opt /opt/lib /opt/include"
check "... of another prefix" "$(pc --define-variable=prefix=/a --variable=libdir) $(pc --define-variable=prefix=/a --variable=includedir)" "/a/lib /a/include"
check "... are those of the flags" "$(pc --define-variable=includedir=/b --cflags | grep -c -- '-I/b') $(pc --define-variable=libdir=/c --libs | grep -c -- '-L/c -lunmask')" "1 1"

echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
