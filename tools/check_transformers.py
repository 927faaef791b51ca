#!/usr/bin/env python3
"""Outside witness: does transformers open what `kedge quantize` writes, and compute the same?

Needs (not at run time of kedge, only here): torch, transformers, compressed-tensors, safetensors.

  tools/check_transformers.py MODEL_DIR [MODEL_DIR ...] [--scheme w4a16-g128 ...] [--kedge build/release/kedge]

Each model is quantized to each scheme twice, with float32 scales and with scales of the source's type, and random token
ids go through transformers (fp32, eager attention) and through `kedge trace`. transformers 5 dequantizes experts while
loading and rounds each weight to the type of the stored scales, whatever dtype was asked for. So with float32 scales
nothing is rounded and the logits must agree within the tolerance; the other figure tells what the rounding does.
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


def transformers_logits(model_dir, ids):
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32, attn_implementation="eager")
    model = model.eval().to(torch.float32)
    with torch.no_grad():
        return model(torch.from_numpy(ids)).logits.numpy()


def kedge_logits(kedge, model_dir, ids, folder):
    source, out = folder / "ids.safetensors", folder / "trace.safetensors"
    save_file({"input_ids": ids}, source)
    subprocess.run([kedge, "trace", model_dir, "--ids", source, "--out", out, "--logits", "--quiet"], check=True)
    return load_file(out)["logits"]


def difference(kedge, source, scheme, scale_dtype, ids):
    """max |transformers - kedge| over the logits of one quantized directory, as kedge wrote it."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        subprocess.run([kedge, "quantize", source, folder / "model", "--scheme", scheme, "--scale-dtype", scale_dtype,
                        "--quiet"], check=True, stdout=subprocess.DEVNULL)
        ours = kedge_logits(kedge, folder / "model", ids, folder)
        return float(np.abs(transformers_logits(folder / "model", ids) - ours).max())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--scheme", nargs="+", default=["w4a16-g128"])
    parser.add_argument("--kedge", default="build/release/kedge")
    parser.add_argument("--tolerance", type=float, default=1e-3)
    parser.add_argument("--tokens", type=int, default=64)
    arguments = parser.parse_args()
    failed = False
    for model in arguments.models:
        vocab = json.loads((pathlib.Path(model) / "config.json").read_text())["vocab_size"]
        ids = np.random.default_rng(0).integers(0, vocab, size=(2, arguments.tokens), dtype=np.int64)
        for scheme in arguments.scheme:
            exact = difference(arguments.kedge, model, scheme, "float32", ids)
            rounded = difference(arguments.kedge, model, scheme, "auto", ids)
            ok = exact <= arguments.tolerance
            failed |= not ok
            print(f"{model} {scheme}: max |difference| of logits {exact:.2e} with float32 scales "
                  f"({'ok' if ok else 'FAILED'}), {rounded:.2e} with the source's type", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
