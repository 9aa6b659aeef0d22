#!/usr/bin/env python3
"""What quantization costs: make a model in every type, compare each with the original, print a Markdown table.

    quality_table.py MODEL TEXT [--unmask build/unmask] [--stories 4] [--mc 16] [--only NAME,NAME]

MODEL: a folder or GGUF file in F32 or BF16; TEXT: what --calibrate reads, JSON lines or plain text that is not in the evaluation
sets (models/eval).  Files are made in a temporary folder, one at a time.
"""
import argparse
import json
import os
import subprocess
import tempfile

ROWS = [  # name, arguments of quantize
    ("F16", ["f16"]), ("Q8_0", ["q8_0"]), ("Q6_K", ["q6_k"]),
    ("Q4_K_M", ["q4_k_m"]), ("Q4_K_M --calibrate self", ["q4_k_m", "--calibrate", "self"]), ("Q4_K_M --calibrate TEXT", ["q4_k_m", "--calibrate", "TEXT"]),
    ("Q4_0", ["q4_0"]), ("Q4_0 --search", ["q4_0", "--search"]), ("Q4_0 --calibrate self", ["q4_0", "--calibrate", "self"]),
    ("Q4_0 --calibrate TEXT", ["q4_0", "--calibrate", "TEXT"]),
]


def compare(args, model, data, limit):
    command = [args.unmask, "eval", "--no-config", "--compare", args.model, model, "--data", os.path.join(args.sets, data), "--mc", str(args.mc), "--limit", str(limit), "--json", "-q"]
    out = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return out["assistant"] if "assistant" in out else out["stories"], out["a"]["weight_bytes"], out["b"]["weight_bytes"]


def line(name, size, qa, st, side):
    low, high = qa["score_%s_interval" % side]
    kl = "| |" if side == "a" else "%.4f | %.4f |" % (qa["kl"], st["kl"])
    same = "" if side == "a" else "%.1f %%" % (100 - 100 * qa["differing"])
    print("| %s | %.1f | %s %.3f | %s | %.0f %% (%.0f to %.0f) |" % (name, size / 1e6, kl, st["nll_" + side], same, 100 * qa["score_" + side], 100 * low, 100 * high), flush=True)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("model")
    p.add_argument("text")
    p.add_argument("--unmask", default="build/unmask")
    p.add_argument("--sets", default="models/eval")
    p.add_argument("--stories", type=int, default=4)
    p.add_argument("--mc", type=int, default=16)
    p.add_argument("--only")
    args = p.parse_args()
    print("| type | weights, MB | KL, questions | KL, stories | likelihood | same tokens | right |\n|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for i, (name, how) in enumerate(r for r in ROWS if not args.only or r[0] in args.only.split(",")):
            out = os.path.join(folder, "model.gguf")
            subprocess.run([args.unmask, "quantize", args.model, out, "--force", "-q"] + [args.text if a == "TEXT" else a for a in how], check=True)
            qa, size_a, size_b = compare(args, out, "assistant.jsonl", 0)
            st = compare(args, out, "stories.jsonl", args.stories)[0]
            if i == 0:
                line("the original", size_a, qa, st, "a")
            line(name, size_b, qa, st, "b")


if __name__ == "__main__":
    main()
