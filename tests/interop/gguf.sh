#!/bin/sh
# GGUF files both ways with a published build of llama.cpp, and before the eyes of another reader; both are fetched with npm.
# Files that we write load there and give nearly our logits; blocks of the same numbers decode to the same values; metadata,
# tensors and offsets read the same.
#   tests/interop/gguf.sh BUILD     needs npm, node and cc on x86-64, and the network on the first run
set -eu
cd "$(dirname "$0")/../.."
build=${1:-build} llama=3.22.1 reader=0.4.6
cache=$build/interop
mkdir -p "$cache/llama" "$cache/reader"
command -v npm >/dev/null && command -v node >/dev/null || { echo "gguf.sh: npm and node are needed" >&2; exit 1; }
[ "$(uname -m)" = x86_64 ] || { echo "skip  gguf.sh: the build of llama.cpp is for x86-64"; exit 0; }

lib=$cache/llama/package/bins/linux-x64
[ -d "$lib" ] || (cd "$cache/llama" && npm pack --silent "@node-llama-cpp/linux-x64@$llama" >/dev/null && tar xzf ./*.tgz)
[ -d "$cache/reader/node_modules" ] || npm install --silent --no-audit --no-fund --prefix "$cache/reader" "@huggingface/gguf@$reader" >/dev/null
lib=$(cd "$lib" && pwd)

cc -O2 -std=c11 -Wall -Wextra tests/interop/llama_logits.c -o "$cache/llama_logits" -L "$lib" -l:libllama.v0.5.0.so -l:libggml.v0.5.0.so \
    -l:libggml-base.so -Wl,-rpath,"$lib" -lm
cc -O2 -std=c11 -Wall -Wextra -Iquant -Iinclude tests/interop/ggml_blocks.c -o "$cache/ggml_blocks" "$build/libunmask.a" -L "$lib" -l:libggml-base.so \
    -Wl,-rpath,"$lib" $(pkg-config --libs sleef jansson libpcre2-8 libutf8proc) -lm -pthread

failed=0
"$cache/ggml_blocks" || failed=1

# ids within every vocabulary, and as many as the smallest context holds
ids=$(awk 'BEGIN { for (i = 0; i < 48; i++) printf "%s%d", i ? "," : "", (i * 7919 + 13) % 400 }')
demo=$cache/demo.gguf
"$build/unmask" quantize --no-config -q --force models/unmask-demo-6M-v1.0-Q8_0.gguf "$demo" f32      # exactly its numbers
# f16 has the same weights on both sides; activations are rounded to 8 bits here for blocked formats and differently there
for from in tests/data/checkpoints/llada-tiny tests/data/checkpoints/llada-gqa tests/data/checkpoints/llada-k256 "$demo"; do
    for type in f16 q8_0 q4_0 q4_k_m; do
        least=0.99; [ "$type" = f16 ] && least=0.9999
        file=$cache/model.gguf what="$(basename "$from") $type"
        if ! "$build/unmask" quantize --no-config -q --force "$from" "$file" "$type" 2>"$cache/err"; then
            if grep -q 'E-QNT-007' "$cache/err"; then echo "skip  $what: $(sed 's/.*error: //' "$cache/err")"; continue; fi
            cat "$cache/err"; failed=1; continue
        fi
        "$build/unmask" forward --no-config -m "$file" --ids "$ids" --logits "$cache/logits.npy" --force
        printf '%s: ' "$what"
        "$cache/llama_logits" "$file" "$lib" "$ids" "$cache/logits.npy" "$least" || { echo "$what: other logits"; failed=1; }
        "$build/unmask" inspect --no-config --json "$file" >"$cache/inspect.json"
        printf '%s: ' "$what"
        node tests/interop/list_gguf.mjs "$cache/reader" "$file" "$cache/inspect.json" || failed=1
    done
done
[ "$failed" -eq 0 ] && echo "gguf.sh: all good"
exit "$failed"
