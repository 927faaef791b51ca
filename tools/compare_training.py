#!/usr/bin/env python3
"""kedge train beside transformers: the same first weights and batches, the loss curves, the speed.

Makes a model of the config with random weights, trains it with `kedge train lm --no-shuffle` and with
tools/reference_trainer.py, prints both losses, their largest difference and the ratio of the speeds (medians over the
steps, the two taking turns in blocks of a few steps where --rounds is above 1). As a yardstick of the difference, the
reference is trained once more from weights that are an ulp off: how far rounding alone carries it from itself.
Needs torch and transformers.

usage: compare_training.py --kedge build/release/kedge --config config.json --tokenizer DIR --text FILE
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile
import time

import torch
import transformers

import reference_trainer


def kedge_run(args, init, out, steps):
    subprocess.run([args.kedge, "train", "lm", "--init", str(init), "--tokenizer", args.tokenizer, "--text", args.text,
                    "--out", str(out), "--steps", str(steps), "--batch-size", str(args.batch_size), "--seqlen",
                    str(args.seqlen), "--no-shuffle", "--optimizer", args.optimizer, "--threads", str(args.threads),
                    "--warmup-ratio", "0.1", "--save-every", "0", "--quiet"], check=True, stdout=subprocess.DEVNULL)
    lines = [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]
    return [l["loss"] for l in lines], [args.batch_size * args.seqlen / l["tokens_per_second"] for l in lines]


def reference_run(args, init, ids, steps):
    settings = dict(reference_trainer.DEFAULTS, steps=steps, optimizer=args.optimizer)
    trainer = reference_trainer.Trainer(reference_trainer.load(init), settings)
    losses, seconds = [], []
    for step in range(1, steps + 1):
        start = time.perf_counter()
        first = (step - 1) * args.batch_size
        rows = [(first + b) % len(ids) for b in range(args.batch_size)]
        losses.append(trainer.step(ids[rows], step))
        seconds.append(time.perf_counter() - start)
    return losses, seconds


@torch.no_grad()
def move_by_an_ulp(init, to):
    """Each weight up, down or not at all."""
    model = reference_trainer.load(init)
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        way = torch.randint(-1, 2, parameter.shape, generator=generator).float()
        parameter.copy_(torch.where(way == 0, parameter, torch.nextafter(parameter, way * torch.inf)))
    model.save_pretrained(to)


def main():
    parser = argparse.ArgumentParser()
    for name in ("kedge", "config", "tokenizer", "text"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--seqlen", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--optimizer", default="adamw")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    transformers.utils.logging.set_verbosity_error()

    tokenizer = transformers.AutoTokenizer.from_pretrained(args.tokenizer)
    text = pathlib.Path(args.text).read_text(encoding="utf-8")
    ids = torch.tensor(tokenizer(text, add_special_tokens=False)["input_ids"])
    ids = ids[:len(ids) // args.seqlen * args.seqlen].view(-1, args.seqlen)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        init = folder / "init"
        config = transformers.AutoConfig.from_pretrained(args.config)
        transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(init)
        ours, theirs = [], []
        for i in range(args.rounds):
            losses, seconds = kedge_run(args, init, folder / f"kedge-{i}", args.steps)
            ours += seconds[1:]
            reference, seconds = reference_run(args, init, ids, args.steps)
            theirs += seconds[1:]
        move_by_an_ulp(init, folder / "moved")
        moved, _ = reference_run(args, folder / "moved", ids, args.steps)
    tokens = args.batch_size * args.seqlen
    worst = max(abs(a - b) for a, b in zip(losses, reference))
    print(json.dumps({
        "steps": args.steps, "loss_first": losses[0], "loss_last": losses[-1], "reference_last": reference[-1],
        "largest_difference": worst,
        "reference_from_an_ulp_away": max(abs(a - b) for a, b in zip(moved, reference)),
        "tokens_per_second": tokens / statistics.median(ours),
        "reference_tokens_per_second": tokens / statistics.median(theirs),
        "speed_ratio": statistics.median(theirs) / statistics.median(ours)}, indent=1))


if __name__ == "__main__":
    main()
