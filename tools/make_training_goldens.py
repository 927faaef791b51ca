#!/usr/bin/env python3
"""Loss curves as transformers and torch give them: the outside witness of src/train.

The golden models of tests/goldens/hf (fp32), the same batches over and over. Into tests/goldens/training:
<family>-<optimizer>.json with the settings, the batches and the loss of each step. Needs torch and transformers.

usage: make_training_goldens.py
"""
import json
import pathlib

import torch

import reference_trainer

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Rates at which no token's choice of experts hangs on the last bit: after one that does, curves part.
CASES = [("olmoe", "adamw", 3e-3), ("olmoe", "muon", 3e-3), ("deepseek_v3", "adamw", 3e-3), ("qwen3_moe", "adamw", 1e-3)]
BATCHES, BATCH, TOKENS, VOCAB = 5, 4, 24, 256


def main():
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(7)
    batches = torch.randint(VOCAB, (BATCHES, BATCH, TOKENS), generator=generator)
    for family, optimizer, lr in CASES:
        settings = dict(reference_trainer.DEFAULTS, optimizer=optimizer, lr=lr)
        trainer = reference_trainer.Trainer(reference_trainer.load(ROOT / "tests/goldens/hf" / family), settings)
        losses = [trainer.step(batches[t % BATCHES], t + 1) for t in range(settings["steps"])]
        path = ROOT / "tests/goldens/training" / f"{family}-{optimizer}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        golden = {"family": family, "settings": settings, "batches": batches.tolist(), "losses": losses}
        path.write_text(json.dumps(golden) + "\n")
        print(f"{path.name}: loss {losses[0]:.4f} to {losses[-1]:.4f}")


if __name__ == "__main__":
    main()
