#!/usr/bin/env python3
"""Write a Hugging Face folder with the shape of LLaDA 8B and random bf16 weights, in several shards: what quantization is
measured with (memory, speed).  16 GB for all 32 layers.

    make_big_folder.py FOLDER [--layers 32] [--shard-bytes 5000000000]

The tokenizer is that of a small test checkpoint; rows of the embedding beyond it stay without a token.  Only the standard
library is used.  Weights are one block of normal numbers (standard deviation 0.02) repeated from another place for every
tensor: quantization does the same work on them as on any others."""
import argparse
import array
import json
import pathlib
import random
import shutil
import struct

D, FF, HEADS, VOCAB, CONTEXT = 4096, 12288, 32, 126464, 4096
DATA = pathlib.Path(__file__).resolve().parent.parent / "data/checkpoints/llada-tiny"


def tensors(layers):
    """Names and shapes in the order of the model."""
    p = "model.transformer."
    yield p + "wte.weight", [VOCAB, D]
    for i in range(layers):
        b = f"{p}blocks.{i}."
        yield b + "attn_norm.weight", [D]
        yield b + "ff_norm.weight", [D]
        for name in ("q_proj", "k_proj", "v_proj", "attn_out"):
            yield f"{b}{name}.weight", [D, D]
        yield b + "ff_proj.weight", [FF, D]
        yield b + "up_proj.weight", [FF, D]
        yield b + "ff_out.weight", [D, FF]
    yield p + "ln_f.weight", [D]
    yield p + "ff_out.weight", [VOCAB, D]


def size(shape):
    n = 2
    for d in shape:
        n *= d
    return n


def random_block(values=1 << 20):
    """bf16: the upper halves of float32 numbers."""
    rng = random.Random(1)
    f = array.array("f", (rng.gauss(0, 0.02) for _ in range(values)))
    return array.array("H", f.tobytes())[1::2].tobytes()


def write_shard(path, part, block, start):
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in part:
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size(shape)]}
        at += size(shape)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for _, shape in part:
            left = size(shape)
            while left:
                n = min(left, len(block) - start)
                f.write(memoryview(block)[start:start + n])
                start = (start + n) % len(block)
                left -= n
            start = (start + 2 * 7919) % len(block)
    return start


def main():
    args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    args.add_argument("folder", type=pathlib.Path)
    args.add_argument("--layers", type=int, default=32)
    args.add_argument("--shard-bytes", type=int, default=5_000_000_000)
    a = args.parse_args()
    a.folder.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(DATA / name, a.folder / name)
    config = json.loads((DATA / "config.json").read_text())
    config.update(d_model=D, mlp_hidden_size=FF, n_heads=HEADS, n_kv_heads=HEADS, n_layers=a.layers, vocab_size=VOCAB,
                  embedding_size=VOCAB, max_sequence_length=CONTEXT)
    (a.folder / "config.json").write_text(json.dumps(config, indent=1))
    parts, bytes_in = [[]], 0
    for name, shape in tensors(a.layers):
        if parts[-1] and bytes_in + size(shape) > a.shard_bytes:
            parts.append([])
            bytes_in = 0
        parts[-1].append((name, shape))
        bytes_in += size(shape)
    block, start, index = random_block(), 0, {}
    for i, part in enumerate(parts):
        name = f"model-{i + 1:05d}-of-{len(parts):05d}.safetensors"
        index.update((tensor, name) for tensor, _ in part)
        start = write_shard(a.folder / name, part, block, start)
    total = sum(size(shape) for part in parts for _, shape in part)
    (a.folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": index}))
    print(f"{a.folder}: {total / 1e9:.2f} GB in {len(parts)} shards")


if __name__ == "__main__":
    main()
