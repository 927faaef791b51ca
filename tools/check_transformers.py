#!/usr/bin/env python3
"""Outside witness: does transformers open a directory that kedge wrote, and compute the same?

Needs (not at run time of kedge, only here): torch, transformers, compressed-tensors, safetensors.

  tools/check_transformers.py MODEL_DIR [MODEL_DIR ...] [--kedge build/release/kedge] [--tolerance 1e-3]

For each directory: random token ids go through transformers (fp32, eager attention) and through `kedge trace`.
transformers 5 dequantizes fused experts while loading, in the type of the stored scales: with bfloat16 scales each
expert weight is rounded once more to bfloat16, whatever dtype was asked for. So the check opens the directory twice:
as written, and with the same scales widened to fp32 (no value changes), where nothing is rounded; the second must agree
within the tolerance, the first is printed beside it.
"""
import argparse
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_torch_file
from safetensors.torch import save_file as save_torch_file
from transformers import AutoModelForCausalLM


def transformers_logits(model_dir, ids):
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32, attn_implementation="eager")
    model = model.eval().to(torch.float32)
    with torch.no_grad():
        return model(torch.from_numpy(ids)).logits.numpy()


def widen_scales(model_dir, folder):
    """A copy of the directory whose weight_scale tensors are fp32."""
    shutil.copytree(model_dir, folder, dirs_exist_ok=True)
    for path in pathlib.Path(folder).glob("*.safetensors"):
        tensors = load_torch_file(path)
        tensors = {n: t.float() if n.endswith(".weight_scale") else t for n, t in tensors.items()}
        save_torch_file(tensors, path, metadata={"format": "pt"})
    return folder


def kedge_logits(kedge, model_dir, ids):
    with tempfile.TemporaryDirectory() as folder:
        source, out = pathlib.Path(folder) / "ids.safetensors", pathlib.Path(folder) / "trace.safetensors"
        save_file({"input_ids": ids}, source)
        subprocess.run([kedge, "trace", model_dir, "--ids", source, "--out", out, "--logits", "--quiet"], check=True)
        return load_file(out)["logits"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--kedge", default="build/release/kedge")
    parser.add_argument("--tolerance", type=float, default=1e-3)
    parser.add_argument("--tokens", type=int, default=64)
    arguments = parser.parse_args()
    failed = False
    for model_dir in arguments.models:
        vocab = json.loads((pathlib.Path(model_dir) / "config.json").read_text())["vocab_size"]
        ids = np.random.default_rng(0).integers(0, vocab, size=(2, arguments.tokens), dtype=np.int64)
        ours = kedge_logits(arguments.kedge, model_dir, ids)
        as_written = float(np.abs(transformers_logits(model_dir, ids) - ours).max())
        with tempfile.TemporaryDirectory() as folder:
            exact = float(np.abs(transformers_logits(widen_scales(model_dir, folder), ids) - ours).max())
        ok = exact <= arguments.tolerance
        failed |= not ok
        print(f"{model_dir}: max |difference| of logits {exact:.2e} with fp32 scales ({'ok' if ok else 'FAILED'}), "
              f"{as_written:.2e} as written")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
