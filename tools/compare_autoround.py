#!/usr/bin/env python3
"""Outside witness: does `kedge quantize --method autoround` reach what the pip package auto-round reaches?

Needs (not at run time of kedge, only here): torch, transformers, auto-round, compressed-tensors.

  tools/compare_autoround.py MODEL_DIR [--scheme w3a16-g128] [--seqlen 256 --nsamples 32 --iters 200 ...]

Both quantize the same model on the same token ids with the same scheme, float16 scales, steps and batch, one after the
other on this machine's CPU; what is left differs is the order of the batches. Then transformers runs the original and
both results in fp32 on those ids, and for each layer the mean squared error of its output is printed (inputs on the
quantized path, as a block's loss has it), the Jaccard index of the expert sets on another text, and the seconds that each
block took, by the clock and of CPU time (for kedge the whole program's, for auto-round that of its tuning alone). By
default auto-round computes in fp32, as kedge does (--amp: in its own default, bf16 where the CPU has it).
"""
import argparse
import json
import pathlib
import random
import re
import resource
import statistics
import subprocess
import tempfile
import time

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

SCHEME = re.compile(r"w(\d)a16-g(\d+)(-asym)?$")


def calibration(arguments, folder):
    """A text of exactly nsamples sequences (for kedge) and their ids (for auto-round)."""
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    text = pathlib.Path(arguments.text).read_text(encoding="utf-8")
    count = arguments.nsamples * arguments.seqlen
    low, high = 0, len(text)
    while low < high:  # the shortest prefix that suffices
        middle = (low + high) // 2
        if len(tokenizer(text[:middle], add_special_tokens=False).input_ids) < count:
            low = middle + 1
        else:
            high = middle
    ids = tokenizer(text[:low], add_special_tokens=False).input_ids
    if len(ids) < count:
        raise SystemExit(f"{arguments.text} has {len(ids)} tokens, {count} are needed")
    path = folder / "calibration.txt"
    path.write_text(text[:low], encoding="utf-8")
    return path, torch.tensor(ids[:count]).view(arguments.nsamples, arguments.seqlen)


def run(model, ids, hooks, batch=8):
    with torch.no_grad():
        for first in range(0, len(ids), batch):
            model(ids[first:first + batch], use_cache=False)
    for hook in hooks:
        hook.remove()


def layer_outputs(model, ids):
    """[layers] of [S, T, H]: each decoder layer's output."""
    layers = model.model.layers
    outputs = [[] for _ in layers]
    hooks = []
    for index, layer in enumerate(layers):
        def keep(_, __, output, index=index):
            outputs[index].append((output[0] if isinstance(output, tuple) else output).detach().float())
        hooks.append(layer.register_forward_hook(keep))
    run(model, ids, hooks)
    return [torch.cat(parts) for parts in outputs]


def selections(model, ids):
    """[MoE layers] of bool [S T, E]: which experts each token goes to."""
    chosen, hooks, k = {}, [], model.config.num_experts_per_tok
    for name, module in model.named_modules():
        if not name.endswith(".mlp.gate"):
            continue
        def keep(_, __, output, name=name):
            logits = (output[0] if isinstance(output, tuple) else output).detach().float()
            top = logits.topk(k, dim=-1).indices
            chosen.setdefault(name, []).append(torch.zeros_like(logits, dtype=torch.bool).scatter(-1, top, True))
        hooks.append(module.register_forward_hook(keep))
    run(model, ids, hooks)
    return [torch.cat([part.flatten(0, -2) for part in parts]) for parts in chosen.values()]


def jaccards(reference, chosen):
    return [float(((a & b).sum(-1) / (a | b).sum(-1)).mean()) for a, b in zip(reference, chosen, strict=True)]


def load(path):
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval().to(torch.float32)


def errors(reference, outputs):
    return [float((a - b).square().mean()) for a, b in zip(reference, outputs)]


def run_kedge(arguments, text, folder, seed):
    out = folder / f"kedge-{seed}"
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    result = subprocess.run(
        [arguments.kedge, "quantize", arguments.model, out, "--method", "autoround", "--scheme", arguments.scheme,
         "--scale-dtype", "float16", "--iters", str(arguments.iters), "--batch-size", str(arguments.batch_size),
         "--calibration", text, "--nsamples", "0", "--seqlen", str(arguments.seqlen), "--seed", str(seed), "--device",
         "cpu", "--threads", str(arguments.threads)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True)
    seconds = [float(x) for x in re.findall(r"layer \d+: mse .* ([\d.]+) s$", result.stderr, re.M)]
    return out, seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before


def run_autoround(arguments, ids, seed):
    from auto_round import AutoRound
    from auto_round.algorithms.quantization.sign_round.quantizer import SignRoundQuantizer
    seconds, cpu, inner = [], [], SignRoundQuantizer.quantize_block

    def timed(self, *args, **kwargs):
        start, start_cpu = time.monotonic(), time.process_time()
        try:
            return inner(self, *args, **kwargs)
        finally:
            seconds.append(time.monotonic() - start)
            cpu.append(time.process_time() - start_cpu)

    bits, group, asymmetric = SCHEME.match(arguments.scheme).groups()
    random.seed(seed)
    SignRoundQuantizer.quantize_block = timed
    try:
        model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype="auto" if arguments.amp else torch.float32)
        tuner = AutoRound(model, AutoTokenizer.from_pretrained(arguments.model), bits=int(bits), group_size=int(group),
                          sym=not asymmetric, dataset=[row.unsqueeze(0) for row in ids], iters=arguments.iters,
                          nsamples=arguments.nsamples, seqlen=arguments.seqlen, batch_size=arguments.batch_size,
                          seed=seed, device_map="cpu", amp=arguments.amp)
        model, _ = tuner.quantize()
    finally:
        SignRoundQuantizer.quantize_block = inner
    return model.eval().to(torch.float32), seconds, sum(cpu)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--scheme", default="w3a16-g128")
    parser.add_argument("--text", default=str(pathlib.Path(__file__).parent.parent / "models/calibration-text.txt"))
    parser.add_argument("--audit-text", default=str(pathlib.Path(__file__).parent.parent / "models/demo-text.txt"))
    parser.add_argument("--nsamples", type=int, default=32)
    parser.add_argument("--seqlen", type=int, default=256)
    parser.add_argument("--iters", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--seeds", type=int, nargs="+", default=[42])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--amp", action="store_true")
    parser.add_argument("--kedge", default="build/release/kedge-torch")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    ours, theirs, ours_seconds, theirs_seconds, ours_cpu, theirs_cpu = [], [], [], [], 0, 0
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        text, ids = calibration(arguments, folder)
        audit = AutoTokenizer.from_pretrained(arguments.model)(
            pathlib.Path(arguments.audit_text).read_text(encoding="utf-8"), add_special_tokens=False).input_ids
        count = min(len(audit) // arguments.seqlen, arguments.nsamples)
        audit = torch.tensor(audit[:count * arguments.seqlen]).view(count, arguments.seqlen)
        original = load(arguments.model)
        reference, routes = layer_outputs(original, ids), selections(original, audit)
        ours_routes, theirs_routes = [], []
        for seed in arguments.seeds:
            out, seconds, cpu = run_kedge(arguments, text, folder, seed)
            quantized = load(out)
            ours.append(errors(reference, layer_outputs(quantized, ids)))
            ours_routes.append(jaccards(routes, selections(quantized, audit)))
            ours_seconds += seconds
            ours_cpu += cpu
            model, seconds, cpu = run_autoround(arguments, ids, seed)
            theirs.append(errors(reference, layer_outputs(model, ids)))
            theirs_routes.append(jaccards(routes, selections(model, audit)))
            theirs_seconds += seconds
            theirs_cpu += cpu
    mean = lambda rows: [statistics.mean(column) for column in zip(*rows)]
    ours, theirs = mean(ours), mean(theirs)
    print(json.dumps({"model": arguments.model, "scheme": arguments.scheme, "nsamples": arguments.nsamples,
                      "seqlen": arguments.seqlen, "iters": arguments.iters, "batch_size": arguments.batch_size,
                      "seeds": arguments.seeds, "threads": arguments.threads, "amp": arguments.amp,
                      "kedge_mse": ours, "autoround_mse": theirs,
                      "ratio": [a / b for a, b in zip(ours, theirs)],
                      "kedge_jaccard_by_seed": ours_routes, "autoround_jaccard_by_seed": theirs_routes,
                      "kedge_seconds_per_block": statistics.mean(ours_seconds),
                      "autoround_seconds_per_block": statistics.mean(theirs_seconds),
                      "kedge_cpu_seconds_per_block": ours_cpu / len(ours_seconds),
                      "autoround_cpu_seconds_per_block": theirs_cpu / len(theirs_seconds),
                      "time_ratio": statistics.mean(ours_seconds) / statistics.mean(theirs_seconds)}, indent=1))


if __name__ == "__main__":
    main()
