# bench_files.sh - for scripts that measure: a model with random weights, on a RAM disk if there is room.

# bench_file UNMASK SHAPE FORMAT: make it, print its path; false if neither the RAM disk nor the folder of temporary files has
# room, or the memory does not hold it twice: as a file on the RAM disk and loaded.
bench_file() {
    case $2 in llada-8b) mib=4400 ;; 0.5b) mib=220 ;; *) mib=8 ;; esac
    case $3 in q8_0) mib=$((mib * 17 / 9)) ;; f16) mib=$((mib * 32 / 9)) ;; esac
    [ "$(awk '/^MemAvailable/ { print int($2 / 1024) }' /proc/meminfo)" -gt $((mib * 9 / 4 + 512)) ] || return 1
    for place in /dev/shm "${TMPDIR:-/tmp}"; do
        [ -w "$place" ] && [ "$(df -Pm "$place" | awk 'NR == 2 { print $4 }')" -gt $((mib + 100)) ] || continue
        file=$place/unmask-bench-$2-$3-$$.gguf
        "$1" bench --no-config --make-model "$2" "$3" "$file" --force >/dev/null || return 1
        echo "$file"
        return
    done
    return 1
}
