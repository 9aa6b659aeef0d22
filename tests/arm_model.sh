#!/bin/sh
# What the ARM matrix products cost, without the hardware: instructions executed per multiply-accumulate, counted by the
# emulator, and a static pipeline model (llvm-mca) of the inner loops with the share of the peak that it grants.
#   arm_model.sh BUILD_ARM
# Cortex-A72: LLVM's model of its sibling A57; smull and smlal go down one of two vector pipes, 8 products a cycle.
# Cortex-A76: LLVM's model of its server sibling Neoverse N1; two sdot a cycle, 16 products each.
# i8mm: the model of Neoverse N2, two vector pipes; two smmla a cycle, 32 products each.
set -u
build=$1
mca=llvm-mca-19

# set, CPU that is emulated, object, model, multiplications (a pattern), products in one, of them in a cycle at the peak
kernels='
neon    cortex-a72  neon         cortex-a72  ^sm(ull|lal)  8  1
dotprod cortex-a76  neon_dotprod neoverse-n1 ^sdot        16  2
i8mm    max,sve=off neon_i8mm    neoverse-n2 ^smmla       32  2
'

# Instructions of one product: two runs that differ by one, single steps logged.
steps() {
    qemu-aarch64-static -L /usr/aarch64-linux-gnu -cpu "$1" -singlestep -d exec,nochain -D /dev/stdout \
        "$build/tests/gemm_once" "$2" "$3" "$rows" "$k" "$tiles" "$4" | grep -c Trace
}

# The instructions of the function's innermost loop with the most multiplications, and of such the shortest (the one of many
# rows, whose weights have been unpacked), as assembly for llvm-mca.
inner_loop() {      # OBJECT FUNCTION PATTERN
    aarch64-linux-gnu-objdump -d --no-show-raw-insn "$1" | awk -v fn="<$2>:" -v pattern="$3" -F '\t' '
        / <.*>:$/ { on = $2 == "" && index($0, fn) }
        on && NF > 2 || on && /^ +[0-9a-f]+:/ {
            address = $1; gsub(/[ :]/, "", address)
            sub(/ *\/\/.*/, "", $3); sub(/ <.*/, "", $3)
            op[n] = $2; arg[n] = $3; at[address] = n++
        }
        END {
            for (i = 0; i < n; i++) {
                t = arg[i]; sub(/.*, */, "", t)
                if (op[i] !~ /^(b\.|cbn?z)/ || !(t in at) || at[t] > i) continue
                count = 0; inner = 1
                for (j = at[t]; j <= i; j++) {
                    count += op[j] ~ pattern
                    u = arg[j]; sub(/.*, */, "", u)
                    if (j < i && op[j] ~ /^(b\.|cbn?z)/ && u in at && at[u] <= j) inner = 0
                }
                if (inner && (count > best || count == best && i - at[t] < to - from)) { best = count; from = at[t]; to = i }
            }
            for (j = from; j <= to; j++) {
                if (op[j] ~ /^(b|b\..*|cbn?z|tbn?z)$/) sub(/[0-9a-f]+$/, "0", arg[j])
                print op[j] "\t" arg[j]
            }
        }'
}

printf '%-8s %-4s %14s %14s %10s %10s %8s  %s\n' set type 'instr./MAC' 'loop: instr.' 'multiply' 'cycles' 'share' 'model'
rows=32 k=1024 tiles=4
echo "$kernels" | while read -r set cpu object model pattern products peak; do
    [ -n "$set" ] || continue
    for type in q4 q4k q6k q8; do
        executed=$(($(steps "$cpu" "$set" $type 2) - $(steps "$cpu" "$set" $type 1)))
        inner_loop "$build/simd/$object.o" gemm_${type}_run "$pattern" >"$build/loop-$set-$type.s"
        $mca -mtriple=aarch64 -mcpu="$model" -mattr=+dotprod,+i8mm -iterations=1000 "$build/loop-$set-$type.s" \
            >"$build/loop-$set-$type.mca" 2>&1 || { cat "$build/loop-$set-$type.mca"; exit 1; }
        cycles=$(awk '/Total Cycles/ { print $3 / 1000 }' "$build/loop-$set-$type.mca")
        awk -v set="$set" -v type=$type -v executed="$executed" -v macs=$((rows * k * tiles * 16)) -v cycles="$cycles" \
            -v pattern="$pattern" -v products="$products" -v peak="$peak" -v model="$model" '
            { n++; mul += $1 ~ pattern }
            END { printf "%-8s %-4s %14.4f %14d %10d %10.1f %7.1f%%  %s\n", set, type, executed / macs, n, mul, cycles,
                         100 * mul / peak / cycles, model }' "$build/loop-$set-$type.s"
    done
done
echo "The loops and llvm-mca's listings lie beside the build: $build/loop-*.s, $build/loop-*.mca"
