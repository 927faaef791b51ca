#!/usr/bin/env python3
"""Outside witness: does transformers open what `kedge quantize` writes, compute the same, and route the same?

Needs (not at run time of kedge, only here): torch, transformers, compressed-tensors, safetensors.

  tools/check_transformers.py MODEL_DIR [MODEL_DIR ...] [--scheme w4a16-g128 ...] [--method auto ...]
      [--kedge build/release/kedge]

Each model is quantized to each scheme twice, with float32 scales and with scales of the source's type, and random token
ids go through transformers (fp32, eager attention) and through `kedge trace`. transformers 5 dequantizes experts while
loading and rounds each weight to the type of the stored scales, whatever dtype was asked for. So with float32 scales
nothing is rounded and the logits must agree within the tolerance; the other figure tells what the rounding does.

Routing: transformers' choices for original and quantized model give the agreement (mean Jaccard) by its own count;
kedge's traces of the same ids give kedge's. They must be equal to 1e-4, and each choice of an expert set must be the
same wherever transformers' margin between the k-th and the (k+1)-th score exceeds 1e-4.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from transformers import AutoModelForCausalLM


def routing_of(router, logits, chosen):
    """A router's sets of experts [T, k], as it chose them, and how clearly it did: margins [T] of the scores that it
    compares, of logits [T, E]. With groups of experts the margin of the groups counts too."""
    top_k, scores = chosen.shape[-1], logits
    margin = torch.full(logits.shape[:1], float("inf"))
    if hasattr(router, "e_score_correction_bias"):
        scores = torch.sigmoid(logits) + router.e_score_correction_bias
        grouped = scores.view(len(scores), router.num_group, -1)
        if router.topk_group < router.num_group:
            values, best = grouped.topk(2, dim=-1)[0].sum(-1).topk(router.topk_group + 1, dim=-1)
            margin = values[:, -2] - values[:, -1]
            kept = torch.zeros(grouped.shape[:2], dtype=torch.bool).scatter_(1, best[:, :-1], True)
            scores = grouped.masked_fill(~kept.unsqueeze(-1), float("-inf")).flatten(1)
    values = scores.topk(top_k + 1, dim=-1)[0]
    margin = torch.minimum(margin, values[:, -2] - values[:, -1])
    return np.sort(chosen.numpy(), axis=1), margin.numpy()


def in_transformers(model_dir, ids):
    """Logits, and the routing of each MoE layer by transformers' own routers."""
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32, attn_implementation="eager")
    model = model.eval().to(torch.float32)
    seen = []
    hooks = [module.register_forward_hook(lambda router, _, out: seen.append((router, out[0], out[-1])))
             for name, module in model.named_modules() if name.endswith(".gate") or name.endswith(".router")]
    with torch.no_grad():
        logits = model(torch.from_numpy(ids)).logits.numpy()
    for hook in hooks:
        hook.remove()
    return logits, [routing_of(router, z.reshape(-1, z.shape[-1]), chosen) for router, z, chosen in seen]


def in_kedge(kedge, model_dir, ids, folder):
    source, out = folder / "ids.safetensors", folder / "trace.safetensors"
    save_file({"input_ids": ids}, source)
    subprocess.run([kedge, "trace", model_dir, "--ids", source, "--out", out, "--logits", "--quiet", "--overwrite"],
                   check=True)
    tensors = load_file(out)
    layers = sorted(int(name.split(".")[1]) for name in tensors if name.startswith("topk_ids."))
    return tensors["logits"], [np.sort(tensors[f"topk_ids.{layer}"], axis=1) for layer in layers]


def jaccard(a, b):
    """Mean |S n S'| / |S u S'| over rows of sorted expert ids [T, k]."""
    common = np.array([len(np.intersect1d(x, y)) for x, y in zip(a, b)])
    return float(np.mean(common / (2 * a.shape[1] - common)))


class Comparison:
    """One quantized directory, as kedge wrote it, in both programs."""

    def __init__(self, kedge, source, arguments, ids):
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            subprocess.run([kedge, "quantize", source, folder / "model", "--quiet"] + arguments, check=True,
                           stdout=subprocess.DEVNULL)
            ours, our_sets = in_kedge(kedge, folder / "model", ids, folder)
            theirs, their_routing = in_transformers(folder / "model", ids)
            _, our_original = in_kedge(kedge, source, ids, folder)
        _, their_original = in_transformers(source, ids)
        self.logits = float(np.abs(theirs - ours).max())
        self.ours = float(np.mean([jaccard(a, b) for a, b in zip(our_original, our_sets)]))
        self.theirs = float(np.mean([jaccard(a[0], b[0]) for a, b in zip(their_original, their_routing)]))
        self.different = sum(int(np.sum(np.any(a != b, axis=1) & (margin > 1e-4)))
                             for ours_, theirs_ in ((our_original, their_original), (our_sets, their_routing))
                             for a, (b, margin) in zip(ours_, theirs_))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--scheme", nargs="+", default=["w4a16-g128"])
    parser.add_argument("--method", nargs="+", default=["auto"])
    parser.add_argument("--kedge", default="build/release/kedge")
    parser.add_argument("--tolerance", type=float, default=1e-3)
    parser.add_argument("--tokens", type=int, default=256)
    arguments = parser.parse_args()
    failed = False
    for model in arguments.models:
        vocab = json.loads((pathlib.Path(model) / "config.json").read_text())["vocab_size"]
        ids = np.random.default_rng(0).integers(0, vocab, size=(2, arguments.tokens), dtype=np.int64)
        for scheme in arguments.scheme:
            for method in arguments.method:
                flags = ["--scheme", scheme, "--method", method, "--nsamples", "32", "--seqlen", "256", "--scale-dtype"]
                exact = Comparison(arguments.kedge, model, flags + ["float32"], ids)
                rounded = Comparison(arguments.kedge, model, flags + ["auto"], ids)
                ok = exact.logits <= arguments.tolerance and exact.different == 0
                ok = ok and abs(exact.ours - exact.theirs) <= 1e-4
                failed |= not ok
                print(f"{model} {scheme} {method}: {'ok' if ok else 'FAILED'}; max |difference| of logits "
                      f"{exact.logits:.2e} with float32 scales, {rounded.logits:.2e} with the source's type; "
                      f"Jaccard {exact.ours:.6f} by kedge, {exact.theirs:.6f} by transformers, "
                      f"{exact.different} different choices beyond a margin of 1e-4", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
