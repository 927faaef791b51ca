#!/usr/bin/env python3
"""Outside witness of attention that looks both ways: transformers with an all-zero 4-D mask against `kedge trace`.

Needs (not at run time of kedge, only here): torch, transformers, safetensors.

  tools/check_diffusion.py MODEL_DIR [MODEL_DIR ...] [--kedge build/release/kedge] [--tokens 64]

Each model, with a `mask_token_id` added to its config, is run on random token ids by both; logits must agree to 1e-4.
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
from transformers import AutoModelForCausalLM


def in_transformers(model_dir, ids):
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32, attn_implementation="eager").eval()
    everything = torch.zeros((ids.shape[0], 1, ids.shape[1], ids.shape[1]))
    with torch.no_grad():
        return model(torch.from_numpy(ids), attention_mask=everything).logits.numpy()


def in_kedge(kedge, model_dir, ids, folder):
    both_ways = folder / "model"
    shutil.copytree(model_dir, both_ways, copy_function=shutil.copyfile)
    config = json.loads((both_ways / "config.json").read_text())
    config["mask_token_id"] = config["vocab_size"] - 1
    (both_ways / "config.json").write_text(json.dumps(config))
    save_file({"input_ids": ids}, folder / "ids.safetensors")
    subprocess.run([kedge, "trace", both_ways, "--ids", folder / "ids.safetensors", "--out", folder / "t.safetensors",
                    "--logits", "--quiet"], check=True)
    return load_file(folder / "t.safetensors")["logits"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--kedge", default="build/release/kedge")
    parser.add_argument("--tokens", type=int, default=64)
    arguments = parser.parse_args()
    failed = False
    for model in arguments.models:
        vocab = json.loads((pathlib.Path(model) / "config.json").read_text())["vocab_size"]
        ids = np.random.default_rng(0).integers(0, vocab, size=(2, arguments.tokens), dtype=np.int64)
        with tempfile.TemporaryDirectory() as folder:
            ours = in_kedge(arguments.kedge, model, ids, pathlib.Path(folder))
        theirs = in_transformers(model, ids).reshape(ours.shape)
        difference = float(np.abs(ours - theirs).max())
        failed |= difference > 1e-4
        print(f"{model}: max |difference| of logits {difference:.2e}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
