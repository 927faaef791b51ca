#!/usr/bin/env python3
"""Outside witness for models whose experts share anchors: decoded here, from docs/formats/anchor-delta.md alone, the weights
go into transformers, and kedge, which runs the packed ones, must give the same logits and choose the same experts.

Needs (not at run time of kedge, only here): torch, transformers, safetensors.

  tools/check_anchor.py MODEL_DIR [MODEL_DIR ...] [--scheme anchor-int4-g64 ...] [--method rtn ...]
      [--kedge build/release/kedge]

Sharded models are not read. Norms of rows on the sphere are checked as well: within 1e-6 of the target norms.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from check_transformers import in_kedge, in_transformers


def unpack(words, count, bits):
    """Codes of rows of 32-bit words, least significant bit first: [..., W] -> [..., count]."""
    flat = np.unpackbits(words.astype("<u4").view(np.uint8), axis=-1, bitorder="little")
    flat = flat[..., :count * bits].reshape(*words.shape[:-1], count, bits)
    return (flat.astype(np.int64) << np.arange(bits)).sum(-1)


def grouped(scales, cols):
    return np.repeat(scales.astype(np.float32), cols // scales.shape[-1], axis=-1)


def decode_stack(get, name, manifest):
    """[E, N, K] in fp32, and the largest deviation of a row's norm from its target."""
    cols, bits = manifest["cols"], manifest["num_bits"]
    anchor = get(name + ".anchor").astype(np.float32)
    if manifest["anchor_dtype"] == "I8":
        anchor = anchor * grouped(get(name + ".anchor_scale"), cols)
    codes = unpack(get(name + ".delta_packed"), cols, bits) - (1 << (bits - 1))
    weights = anchor + codes.astype(np.float32) * grouped(get(name + ".delta_scale"), cols)
    if manifest["manifold"] == "none":
        return weights, 0.0
    if manifest["manifold"] != "sphere" or manifest["masks"] != 0:
        raise SystemExit(f"{name}: not made by kedge quantize")
    weights = weights * get(name + ".row_scale")[..., None]
    norms = np.linalg.norm(weights.astype(np.float64), axis=-1)
    return weights, float(np.abs(norms / get(name + ".target_norm") - 1).max())


def decode_model(folder, to):
    """A plain fp32 model; returns the worst row norm."""
    config = json.loads((folder / "config.json").read_text())
    quant = config.pop("quantization_config")
    config["torch_dtype"] = config["dtype"] = "float32"
    tensors, worst = {}, 0.0
    with safe_open(folder / "model.safetensors", "pt") as file:
        get = lambda name: (lambda t: t.float().numpy() if t.dtype.is_floating_point and t.element_size() == 2 else t.numpy())(file.get_tensor(name))
        names = list(file.keys())
        for name, manifest in quant["stacks"].items():
            weights, error = decode_stack(get, name, manifest)
            worst = max(worst, error)
            head, part = name.rsplit(".", 1)
            for expert in range(manifest["experts"]):
                tensors[f"{head}.{expert}.{part}.weight"] = weights[expert]
        for name in names:
            if name.rsplit(".", 1)[0] in quant["stacks"]:
                continue
            if name.endswith(".weight_packed"):
                module = name[:-len(".weight_packed")]
                scales = get(module + ".weight_scale")
                rows, cols = get(module + ".weight_shape")
                words = get(name)
                bits = words.shape[1] * 32 // int(cols)
                codes = unpack(words, int(cols), bits) - (1 << (bits - 1))
                tensors[module + ".weight"] = codes.astype(np.float32) * grouped(scales, int(cols))
            elif ".weight_" not in name:
                tensors[name] = get(name).astype(np.float32)
    to.mkdir()
    (to / "config.json").write_text(json.dumps(config))
    save_file({name: np.ascontiguousarray(values) for name, values in tensors.items()}, to / "model.safetensors", {"format": "pt"})
    return worst


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=pathlib.Path)
    parser.add_argument("--scheme", nargs="+", default=["anchor-int4-g64", "anchor-int2-g64-int8-sphere"])
    parser.add_argument("--method", nargs="+", default=["rtn"])
    parser.add_argument("--kedge", default="build/release/kedge")
    parser.add_argument("--tolerance", type=float, default=1e-3)
    parser.add_argument("--tokens", type=int, default=256)
    arguments = parser.parse_args()
    failed = False
    for model in arguments.models:
        vocab = json.loads((model / "config.json").read_text())["vocab_size"]
        ids = np.random.default_rng(0).integers(0, vocab, size=(2, arguments.tokens), dtype=np.int64)
        for scheme in arguments.scheme:
            for method in arguments.method:
                with tempfile.TemporaryDirectory() as name:
                    folder = pathlib.Path(name)
                    subprocess.run([arguments.kedge, "quantize", model, folder / "q", "--scheme", scheme, "--method", method,
                                    "--nsamples", "32", "--seqlen", "256", "--quiet"], check=True, stdout=subprocess.DEVNULL)
                    worst = decode_model(folder / "q", folder / "decoded")
                    ours, our_sets = in_kedge(arguments.kedge, folder / "q", ids, folder)
                    theirs, their_routing = in_transformers(folder / "decoded", ids)
                difference = float(np.abs(theirs - ours).max())
                changed = sum(int(np.sum(np.any(a != b, axis=1) & (margin > 1e-4))) for a, (b, margin) in zip(our_sets, their_routing))
                ok = difference <= arguments.tolerance and changed == 0 and worst <= 1e-6
                failed |= not ok
                print(f"{model.name} {scheme} {method}: {'ok' if ok else 'FAILED'}; max |difference| of logits {difference:.2e}, "
                      f"{changed} different choices beyond a margin of 1e-4, row norms within {worst:.1e}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
