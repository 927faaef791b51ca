#!/usr/bin/env python3
"""Trains the models of recipes/mcqsmoe and writes docs/results/mcqsmoe.md from the records.

usage: tools/mcqsmoe_study.py run [--out FOLDER] [--steps N] [--seeds 1 2 3 4 5] [--large-seeds 1 2] [--ablation-seeds 1 2]
                                  [...]
       tools/mcqsmoe_study.py report [--out FOLDER]

`run` leaves one JSON record per model and seed in OUT/records; one that is there is not run again, and a training that
was stopped goes on from its newest checkpoint, so the same command continues after any interruption. `report` collects the
records into docs/results/records/mcqsmoe.json and writes docs/results/mcqsmoe.md from that file alone; without --out
it writes the page from the file that is there. Needs Python's standard library only.
"""
import argparse
import hashlib
import json
import math
import pathlib
import shutil
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
RECIPES = ROOT / "recipes/mcqsmoe"
COLLECTED = ROOT / "docs/results/records/mcqsmoe.json"
PAGE = ROOT / "docs/results/mcqsmoe.md"

MODELS = {
    "by-error": "routed by error",
    "learned-router": "learned router, equal experts",
    "dense-stored": "dense, equal stored parameters",
    "dense-active": "dense, equal active multiply-adds",
}
LARGE = {
    "by-error-20m": "routed by error",
    "learned-router-20m": "learned router, equal experts",
}
# Balance at kedge train's 0.01 leaves two of four experts without tokens: what is selected learns to reconstruct.
BY_ERROR_FLAGS = {"--balance-loss": "0.1"}
# name -> (what it is, keys of by-error.json that change, flags that change)
ABLATIONS = {
    "temperature-0.03": ("temperature 0.03", {"router_temperature": 0.03}, {}),
    "temperature-0.3": ("temperature 0.3", {"router_temperature": 0.3}, {}),
    "temperature-1": ("temperature 1", {"router_temperature": 1.0}, {}),
    "temperature-trained": ("temperature trained from 0.1, by layer", {"router_temperature_trained": True}, {}),
    "bottleneck-16": ("bottleneck 16", {"router_bottleneck": 16}, {}),
    "bottleneck-128": ("bottleneck 128", {"router_bottleneck": 128}, {}),
    "bits-2": ("deltas of 2 bits", {"expert_delta_bits": 2}, {}),
    "bits-none": ("deltas never rounded (fp32)", {}, {"--round-after": "1"}),
}
# Two-sided 95 % quantiles of Student's t by degrees of freedom (any table of it).
T95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262, 10: 2.228,
       11: 2.201, 12: 2.179, 13: 2.160, 14: 2.145, 15: 2.131, 16: 2.120, 17: 2.110, 18: 2.101, 19: 2.093, 20: 2.086}


def call(words):
    """stdout of a command; its stderr goes to ours."""
    done = subprocess.run([str(w) for w in words], stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"exit code {done.returncode}: {' '.join(map(str, words))}")
    return done.stdout


def file_bytes(folder):
    return sum(f.stat().st_size for f in folder.glob("*.safetensors"))


def training_seconds(folder, tokens_per_step):
    """Of all runs together, from the speed of each step."""
    lines = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    return sum(tokens_per_step / line["tokens_per_second"] for line in lines if "tokens_per_second" in line)


def without_places(provenance):
    """What says how a record came about, and no folder of the machine it came about on."""
    kept = {k: v for k, v in provenance.items() if k not in ("command_line", "inputs")}
    kept["inputs"] = [{k: pathlib.Path(v).name if k == "path" else v for k, v in entry.items()}
                      for entry in provenance.get("inputs", [])]
    return kept


def perplexity(options, folder):
    out = json.loads(call([options.kedge, "perplexity", folder, "--text", *options.valid, "--seqlen", options.seqlen,
                           "--threads", options.threads, "--json", "--quiet"]))["results"]
    return {"nll": out["mean_nll"], "perplexity": out["ppl"], "tokens": out["tokens_scored"]}


def blimp(options, folder):
    words = [options.kedge, "eval", folder, "--tasks", "blimp", "--threads", options.threads, "--json", "--quiet"]
    if options.eval_data:
        words += ["--data-dir", options.eval_data]
    if options.eval_limit:
        words += ["--limit", options.eval_limit]
    out = json.loads(call(words))["results"]
    return {"accuracy": out["groups"]["blimp"]["acc,none"], "data": "bundled" if not options.eval_data else "full"}


def run_one(options, name, seed, config, flags):
    record_path = options.out / "records" / f"{name}_seed{seed}.json"
    plan = {"name": name, "seed": seed, "config": config, "steps": options.steps, "batch_size": options.batch_size,
            "seqlen": options.seqlen, "lr": options.lr, "dtype": options.dtype, "flags": flags}
    if record_path.exists():
        old = json.loads(record_path.read_text())
        if old["plan"] != plan:
            sys.exit(f"{record_path} is of another plan: give another --out, or remove it")
        return
    folder = options.out / "models" / f"{name}_seed{seed}"
    config_path = options.out / "configs" / f"{name}.json"
    for path in (record_path.parent, folder.parent, config_path.parent):
        path.mkdir(parents=True, exist_ok=True)
    config_path.write_text(json.dumps(config, indent=2) + "\n")
    if not (folder / "training.json").exists():
        words = [options.kedge, "train", "lm", "--config", config_path, "--tokenizer", ROOT / "models/demo-4m", "--text",
                 *options.text, "--valid", *options.valid, "--out", folder, "--steps", options.steps, "--batch-size",
                 options.batch_size, "--seqlen", options.seqlen, "--lr", options.lr, "--dtype", options.dtype,
                 "--eval-every", 0, "--save-every", max(1, options.steps // 4), "--seed", seed, "--data-seed",
                 1000 + seed, "--routing-seed", 2000 + seed, "--threads", options.threads]
        for key, value in flags.items():
            words += [key, value]
        call(words)
    trained = json.loads((folder / "training.json").read_text())
    masters = sorted(folder.glob("checkpoint-*"))[-1]
    rounded = "quantization_config" in json.loads((folder / "config.json").read_text())
    record = {
        "plan": plan,
        "training": {**trained["results"],
                     "seconds_of_all_runs": training_seconds(folder, options.batch_size * options.seqlen)},
        "provenance": without_places(trained["provenance"]),
        "stored": perplexity(options, folder),
        "masters": perplexity(options, masters) if rounded else None,
        "blimp": blimp(options, folder),
        "bytes": file_bytes(folder),
    }
    if not rounded and config.get("mlp_only_layers"):
        eight = folder.with_name(folder.name + "_w8")
        shutil.rmtree(eight, ignore_errors=True)
        call([options.kedge, "quantize", folder, eight, "--scheme", "w8a16-g64", "--method", "rtn", "--threads",
              options.threads, "--quiet"])
        record["eight_bits"] = {**perplexity(options, eight), "bytes": file_bytes(eight)}
        shutil.rmtree(eight)
    partial = record_path.with_suffix(".partial")
    partial.write_text(json.dumps(record, indent=1) + "\n")
    partial.rename(record_path)
    for checkpoint in folder.glob("checkpoint-*"):
        (checkpoint / "optimizer.safetensors").unlink(missing_ok=True)
    print(f"{name}, seed {seed}: perplexity {record['stored']['perplexity']:.2f}, "
          f"BLiMP {record['blimp']['accuracy']:.3f}, {record['training']['seconds_of_all_runs']:.0f} s", flush=True)


def run_subspaces(options, seed):
    """Vectors of known owners: seconds."""
    record_path = options.out / "records" / f"subspaces_seed{seed}.json"
    if record_path.exists():
        return
    folder = options.out / "models" / f"subspaces_seed{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    record_path.parent.mkdir(parents=True, exist_ok=True)
    call([options.kedge, "train", "subspaces", "--config", RECIPES / "subspaces.json", "--out", folder, "--steps", 1000,
          "--batch-size", 256, "--lr", "0.01", "--reconstruction-loss", 1, "--seed", seed, "--data-seed", 1000 + seed,
          "--routing-seed", 2000 + seed])
    trained = json.loads((folder / "training.json").read_text())
    record = {"plan": {"name": "subspaces", "seed": seed}, "training": trained["results"], "settings": trained["config"],
              "provenance": without_places(trained["provenance"])}
    record_path.write_text(json.dumps(record, indent=1) + "\n")
    print(f"subspaces, seed {seed}: {trained['results']['after']['specialisation']:.3f}", flush=True)


def run(options):
    base = json.loads((RECIPES / "by-error.json").read_text())
    for seed in options.seeds:
        run_subspaces(options, seed)
    for seed in options.seeds:
        for name in MODELS:
            flags = BY_ERROR_FLAGS if name == "by-error" else {}
            run_one(options, name, seed, json.loads((RECIPES / f"{name}.json").read_text()), flags)
    run_parity(options)
    for seed in options.large_seeds:
        for name in LARGE:
            flags = BY_ERROR_FLAGS if name.startswith("by-error") else {}
            run_one(options, name, seed, json.loads((RECIPES / f"{name}.json").read_text()), flags)
    for seed in options.ablation_seeds:
        for name, (_, keys, flags) in ABLATIONS.items():
            run_one(options, name, seed, {**base, **keys}, {**BY_ERROR_FLAGS, **flags})


def run_parity(options):
    """The first model routed by error against float64 PyTorch, layer by layer."""
    record_path = options.out / "records" / "parity.json"
    folder = options.out / "models" / f"by-error_seed{options.seeds[0]}"
    if record_path.exists() or not options.reference_python:
        return
    layers = options.out / "parity.json"
    layers.unlink(missing_ok=True)
    words = [options.reference_python, ROOT / "tools/mcqsmoe_reference.py", "check", folder, "--masters",
             sorted(folder.glob("checkpoint-*"))[-1], "--kedge", options.kedge, "--text", options.valid[0], "--json", layers]
    # A layer beyond the tool's limits is a result as any other; without results there is nothing to report.
    subprocess.run([str(w) for w in words], stdout=sys.stderr)
    if not layers.exists():
        sys.exit("the comparison with float64 left no results")
    record = {"plan": {"name": "parity", "seed": options.seeds[0]}, **json.loads(layers.read_text())}
    record_path.write_text(json.dumps(record, indent=1) + "\n")


def interval(values):
    """Mean and half the width of its 95 % interval; nan for less than two values."""
    if len(values) < 2:
        return statistics.fmean(values), math.nan
    return statistics.fmean(values), T95[len(values) - 1] * statistics.stdev(values) / math.sqrt(len(values))


def show(values, digits):
    mean, half = interval(values)
    return f"{mean:.{digits}f}" if math.isnan(half) else f"{mean:.{digits}f} ± {half:.{digits}f}"


def by_seed(records, name):
    return {r["plan"]["seed"]: r for r in records if r["plan"]["name"] == name}


def difference(records, name, baseline, value):
    """Paired by seed: of `name` over `baseline`."""
    own, other = by_seed(records, name), by_seed(records, baseline)
    return [value(own[s]) - value(other[s]) for s in sorted(own) if s in other]


def verdict(differences, what):
    mean, half = interval(differences)
    if math.isnan(half):
        return "one seed: no interval"
    if abs(mean) <= half:
        return f"the interval of the difference holds 0: no difference is shown by {len(differences)} seeds"
    return f"{what[0] if mean > 0 else what[1]} in {len(differences)} paired seeds"


def main_table(records, models):
    lines = ["| model | parameters | active | perplexity | BLiMP | training, s | stored, MB |", "|---|---|---|---|---|---|---|"]
    for name, title in models.items():
        own = list(by_seed(records, name).values())
        if not own:
            continue
        t = own[0]["training"]
        lines.append(f"| {title} | {t['parameters'] / 1e6:.2f} M | {t['active_parameters'] / 1e6:.2f} M | "
                     f"{show([r['stored']['perplexity'] for r in own], 2)} | "
                     f"{show([r['blimp']['accuracy'] for r in own], 3)} | "
                     f"{show([r['training']['seconds_of_all_runs'] for r in own], 0)} | {own[0]['bytes'] / 1e6:.2f} |")
    return lines


def eight_bit_lines(records):
    lines = []
    for name in ("dense-stored", "dense-active"):
        own = [r for r in by_seed(records, name).values() if r.get("eight_bits")]
        if own:
            lines.append(f"| {MODELS[name]} | {show([r['eight_bits']['perplexity'] for r in own], 2)} | "
                         f"{own[0]['eight_bits']['bytes'] / 1e6:.2f} |")
    return ["", "All matrices of the dense models, attention's too, rounded to 8 bits in groups of 64 (8.25 bits a weight, what an fp16 anchor",
            "with four int4 deltas takes), after training and without calibration:", "", "| model | perplexity | stored, MB |",
            "|---|---|---|", *lines] if lines else []


def comparison_lines(records, models):
    base = next(iter(models))
    lines = ["", "Differences by seed to the model routed by error, of nats per token (above 0: worse than it) and of BLiMP:", "",
             "| model | nats per token | BLiMP | |", "|---|---|---|---|"]
    for name, title in models.items():
        if name == base or not by_seed(records, name):
            continue
        nll = difference(records, name, base, lambda r: r["stored"]["nll"])
        acc = difference(records, name, base, lambda r: r["blimp"]["accuracy"])
        if nll:
            lines.append(f"| {title} | {show(nll, 4)} | {show(acc, 3)} | "
                         f"{verdict(nll, ('worse than routing by error', 'better than routing by error'))} |")
    return lines


def large_lines(records):
    own = by_seed(records, "by-error-20m")
    if not own:
        return []
    plan = next(iter(own.values()))["plan"]
    config = plan["config"]
    return ["", "## Twenty million parameters", "",
            f"{config['num_experts']} experts of {config['moe_intermediate_size']} hidden units in {config['num_hidden_layers']} layers of width "
            f"{config['hidden_size']}, {config['num_experts_per_tok']} per token, trained alike",
            f"({plan['steps']} steps of {plan['batch_size']} x {plan['seqlen']}, {'one seed' if len(own) == 1 else f'{len(own)} seeds'}).", "",
            *main_table(records, LARGE), *comparison_lines(records, LARGE)]


def rounding_lines(records):
    pairs = [r for r in records if r["plan"]["name"] in ("by-error", "learned-router") and r["masters"]]
    if not pairs:
        return []
    cost = [r["stored"]["nll"] - r["masters"]["nll"] for r in pairs if r["plan"]["name"] == "by-error"]
    return ["", f"The stored deltas cost the model routed by error {show(cost, 4)} nats per token over its fp32 weights, which were",
            "trained to be rounded."]


def load_lines(records):
    own = list(by_seed(records, "by-error").values())
    learned = list(by_seed(records, "learned-router").values())
    def peak(rows):
        return [statistics.fmean(r["training"]["expert_load"]) for r in rows]
    if not own or not learned:
        return []
    return ["", f"The busiest expert of a layer got {show(peak(own), 2)} times the mean load by error, and {show(peak(learned), 2)} with the",
            "learned router (mean over the layers, last tenth of the steps)."]


def ablation_lines(records):
    lines = ["", "## Temperature, bottleneck, bits", "",
             "One key of the model routed by error changed, the rest equal; the encoders' multiply-adds grow with the bottleneck. Differences by",
             "seed to the unchanged model, nats per token.", "", "| changed | seeds | perplexity | difference |", "|---|---|---|---|"]
    found = False
    for name, (title, _, _) in ABLATIONS.items():
        own = by_seed(records, name)
        gap = difference(records, name, "by-error", lambda r: r["stored"]["nll"])
        if not own or not gap:
            continue
        found = True
        lines.append(f"| {title} | {len(own)} | {show([r['stored']['perplexity'] for r in own.values()], 2)} | {show(gap, 4)} |")
    return lines if found else []


def parity_lines(records):
    own = list(by_seed(records, "parity").values())
    if not own:
        return []
    rows = own[0]["layers"]
    lines = ["", "## Port and rounding, by layer", "",
             f"The model routed by error, seed {own[0]['plan']['seed']}, as stored: each layer by the engine and, from the same input and stored weights,",
             "by `tools/mcqsmoe_reference.py` in float64; 1e-4 and 0.005 % are wanted. Rounding: the stored weights against the fp32 ones, both in float64.", "",
             "| layer | max_abs | largest output | NRMSE, % | other choices | row norms off by | rounding, NRMSE % |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        lines.append(f"| {row['layer']} | {row['max_abs']:.2e} | {row['largest']:.1f} | {100 * row['nrmse']:.1e} | {row.get('other_choices', '')} | "
                     f"{row.get('row_norm_error', 0):.1e} | {100 * row.get('rounding_nrmse', 0):.2f} |")
    return lines


def subspace_lines(records):
    own = list(by_seed(records, "subspaces").values())
    if not own:
        return []
    t = own[0]["training"]
    after = [r["training"]["after"]["specialisation"] for r in own]
    before = [r["training"]["before"]["specialisation"] for r in own]
    bits = [r["training"]["after"]["load_entropy_bits"] for r in own]
    config = own[0]["settings"]["config"]
    return ["", "## Specialisation on a union of subspaces", "",
            f"{config['num_experts']} autoencoders of {config['router_bottleneck']} in {config['hidden_size']} dimensions see vectors of as many subspaces and no owner",
            f"(`kedge train subspaces`). Of {t['test_vectors']} held-out vectors {show([100 * v for v in after], 1)} % go to their owner's expert, experts matched to",
            f"owners one to one; {show([100 * v for v in before], 1)} % before training; {100 * t['chance']:.1f} % by chance. Load entropy {show(bits, 2)} of {math.log2(config['num_experts']):.2f} bits. {len(own)} seeds."]


def report(options):
    if options.out:
        records = [json.loads(p.read_text()) for p in sorted((options.out / "records").glob("*.json"))]
        COLLECTED.write_text(json.dumps(records, indent=1) + "\n")
    records = json.loads(COLLECTED.read_text())
    if not records:
        sys.exit("no record is there: run first")
    first = next((r for r in records if r["plan"]["name"] == "by-error"), None)
    if first is None:
        sys.exit("no record of by-error is there: run first")
    plan, provenance = first["plan"], first["provenance"]
    digest = hashlib.sha256(COLLECTED.read_bytes()).hexdigest()[:16]
    tokens = plan["steps"] * plan["batch_size"] * plan["seqlen"]
    seeds = sorted(by_seed(records, "by-error"))
    hashes = " and ".join(sorted({r["provenance"]["git_hash"] for r in records if "provenance" in r}))
    lines = [
        "# Routing by reconstruction error against a learned router and dense layers", "",
        f"Written by `tools/mcqsmoe_study.py report` from [records/mcqsmoe.json](records/mcqsmoe.json) (SHA-256 {digest}…).", "",
        f"The toy language model of MCQSMoE and three others ([recipes/mcqsmoe](../../recipes/mcqsmoe/README.md)), each trained on {tokens:,} tokens",
        f"({plan['steps']} steps of {plan['batch_size']} x {plan['seqlen']}, {plan['dtype']}) with {len(seeds)} seeds, measured on {first['stored']['tokens']:,} tokens of another text. Means with",
        "95 % intervals of Student's t over the seeds. This is a small budget: it tells how the four start to learn, not where they end.", "",
        f"{provenance['cpu']}, {provenance['threads']} threads, kedge {hashes}. The four models trained one after the other on an idle",
        "machine; other work ran beside some of the changed and the large ones, so their seconds are upper bounds.", "",
        *main_table(records, MODELS), *eight_bit_lines(records), *comparison_lines(records, MODELS),
        *rounding_lines(records), *load_lines(records), *large_lines(records), *ablation_lines(records), *parity_lines(records), *subspace_lines(records), ""]
    PAGE.write_text("\n".join(lines))
    print(f"{PAGE}: {len(records)} records")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "report"])
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--kedge", default=ROOT / "build/release/kedge")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--seqlen", type=int, default=128)
    parser.add_argument("--lr", default="0.002")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2, 3, 4, 5])
    parser.add_argument("--ablation-seeds", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--large-seeds", type=int, nargs="*", default=[1, 2], help="of the models of about 20 M parameters")
    parser.add_argument("--text", nargs="+", default=[ROOT / "models/calibration-text.txt"])
    parser.add_argument("--valid", nargs="+", default=[ROOT / "models/demo-text.txt"])
    parser.add_argument("--eval-data", help="a folder with BLiMP's records; none: kedge's own subset")
    parser.add_argument("--reference-python", help="a Python with torch and safetensors, to compare each layer with float64")
    parser.add_argument("--eval-limit", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    if options.what == "run":
        options.out = options.out or ROOT / "build/mcqsmoe-study"
        run(options)
    else:
        report(options)


if __name__ == "__main__":
    main()
