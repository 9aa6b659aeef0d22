#!/usr/bin/python3
"""Trajectories of published reuse methods on the small checkpoints, by a separate and plain implementation in numpy.

  reuse_reference.py CHECKPOINT_FOLDER > tests/data/goldens/NAME/reuse.txt

  dkv       dKV-Cache-Decode: a block's steps 0, 1 and every 8th compute all rows; the others the masks of the canvas and what
            was decoded one step ago
  vicinity  dInfer: four steps over all rows, then all rows where a block begins, else the block and 16 rows on either side
  window    Window-Diffusion: phases of 32 steps; the first computes all rows, the others the 16 leftmost masks and what was decoded
            in the phase, and attend to no mask but the 64 leftmost

Keys and values that are not computed keep their last values.  Each step commits the surest masks of the block by LLaDA's
schedule, at temperature 0.  Cases whose decisions are too close to be the same under another order of sums are left out.
"""
import json, os, struct, sys
import numpy as np


def read_weights(folder):
    b = open(os.path.join(folder, "model.safetensors"), "rb").read()
    n = struct.unpack("<Q", b[:8])[0]
    out = {}
    for name, t in json.loads(b[8:8 + n]).items():
        if name == "__metadata__":
            continue
        raw = b[8 + n + t["data_offsets"][0]:8 + n + t["data_offsets"][1]]
        x = np.frombuffer(raw, "<u2").astype("<u4") << 16 if t["dtype"] == "BF16" else np.frombuffer(raw, "<f4")
        out[name.replace("model.transformer.", "")] = x.view("<f4").reshape(t["shape"]).astype(np.float64)
    return out


class Net:
    def __init__(self, folder):
        j = json.load(open(os.path.join(folder, "config.json")))
        self.w, self.L, self.h, self.kv, self.d, self.mask = read_weights(folder), j["n_layers"], j["n_heads"], j["n_kv_heads"], j["d_model"], j["mask_token_id"]
        self.hd, self.eps = self.d // self.h, j["rms_norm_eps"]
        a = np.arange(512)[:, None] * (j["rope_theta"] ** (-np.arange(0, self.hd, 2) / self.hd))[None]
        self.cos, self.sin = np.cos(a), np.sin(a)

    def rope(self, x, rows):                        # [rows, heads, hd]: halves are rotated
        c, s, m = self.cos[rows][:, None], self.sin[rows][:, None], self.hd // 2
        return np.concatenate((x[..., :m] * c - x[..., m:] * s, x[..., m:] * c + x[..., :m] * s), -1)

    def norm(self, x, name):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.eps) * self.w[name + ".weight"]

    def linear(self, x, name):
        return x @ self.w[name + ".weight"].T + self.w.get(name + ".bias", 0)

    def logits(self, ids, rows, keys, store):
        """Rows go through all layers; store[layer] = [keys, values], [positions, heads, hd], takes theirs; -> [rows, vocabulary]"""
        x = self.w["wte.weight"][ids[rows]]
        for l in range(self.L):
            B = "blocks.%d." % l
            n = self.norm(x, B + "attn_norm")
            q, k, v = (self.linear(n, B + p + "_proj").reshape(len(rows), -1, self.hd) for p in "qkv")
            store[l][0][rows], store[l][1][rows] = self.rope(k, rows), v
            each = self.h // self.kv
            K, V = (np.repeat(t[keys], each, 1) for t in store[l])
            s = np.einsum("qhd,khd->hqk", self.rope(q, rows), K) / np.sqrt(self.hd)
            s = np.exp(s - s.max(-1, keepdims=True))
            x = x + self.linear(np.einsum("hqk,khd->qhd", s / s.sum(-1, keepdims=True), V).reshape(len(rows), self.d), B + "attn_out")
            n = self.norm(x, B + "ff_norm")
            g = self.linear(n, B + "ff_proj")
            x = x + self.linear(g / (1 + np.exp(-g)) * self.linear(n, B + "up_proj"), B + "ff_out")
        return self.norm(x, "ln_f") @ self.w["ff_out.weight" if "ff_out.weight" in self.w else "wte.weight"].T


def rows_of(method, step, in_block, phase_start, start, end, masks, decoded_at, n):
    """Positions that a step computes, and those it attends to."""
    everything = np.arange(n)
    if method == "dkv":
        if in_block < 2 or in_block % 8 == 0:
            return everything, everything
        return np.flatnonzero(masks | (decoded_at == step - 1)), everything
    if method == "vicinity":
        if step < 4 or in_block == 0:
            return everything, everything
        return np.arange(max(0, start - 16), min(n, end + 16)), everything
    if step == phase_start:
        return everything, everything
    left = np.flatnonzero(masks)
    visible = ~masks
    visible[left[:64]] = True
    return np.unique(np.concatenate((left[:16], np.flatnonzero(decoded_at >= phase_start)))), np.flatnonzero(visible)


def trajectory(net, method, prompt, gen, block, steps):
    """-> states, and whether every decision is clear"""
    n = len(prompt) + gen
    ids = np.array(list(prompt) + [net.mask] * gen)
    store = [[np.zeros((n, net.kv, net.hd)), np.zeros((n, net.kv, net.hd))] for _ in range(net.L)]
    decoded_at = np.full(n, -1)                     # step of each commit
    states, clear, step, phase = [ids.copy()], True, 0, 0
    each = steps // (gen // block)
    for start in range(len(prompt), n, block):
        end, in_start = start + block, step
        quota = [block // each + (i < block % each) for i in range(each)]
        for k in quota:
            masks = ids == net.mask
            if step - phase >= 32:
                phase = step
            rows, keys = rows_of(method, step, step - in_start, phase, start, end, masks, decoded_at, n)
            z = net.logits(ids, rows, keys, store)
            may = np.array([i for i, r in enumerate(rows) if masks[r] and r < end])
            z, at = z[may], rows[may]
            p = np.exp(z - z.max(-1, keepdims=True))
            p /= p.sum(-1, keepdims=True)
            p[:, net.mask] = 0
            order = np.argsort(-p.max(-1), kind="stable")
            best = np.sort(p.max(-1))[::-1]
            two = np.sort(p, -1)
            clear &= len(best) <= k or best[k - 1] - best[k] > 2e-5 * best[k]
            clear &= bool((two[order[:k], -1] - two[order[:k], -2] > 2e-5 * two[order[:k], -1]).all())
            ids[at[order[:k]]] = p.argmax(-1)[order[:k]]
            decoded_at[at[order[:k]]] = step
            step += 1
            states.append(ids.copy())
    return states, clear


def main():
    net, random, number = Net(sys.argv[1]), np.random.default_rng(7), 0
    for method, gen, block, steps in (("dkv", 48, 24, 24), ("dkv", 60, 60, 30), ("vicinity", 48, 16, 24), ("vicinity", 64, 16, 32), ("window", 96, 96, 48), ("window", 80, 80, 40)):
        for _ in range(2):
            prompt = random.integers(1, 490, int(random.integers(5, 24)))
            states, clear = trajectory(net, method, prompt, gen, block, steps)
            if not clear:
                continue
            print("case %s_%d\nsampler fast\nseed 0\narg steps %d\narg gen_length %d\narg block_length %d\narg cache %s\ndims %d 1 %d" %
                  (method, number, steps, gen, block, method, len(states), len(states[0])))
            for i, s in enumerate(states):
                print("state %d 0 %s" % (i, " ".join(map(str, s))))
            print("end\n")
            number += 1


main()
