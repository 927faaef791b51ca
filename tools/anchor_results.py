#!/usr/bin/env python3
"""Error against bits of experts on shared anchors, beside plain groups of integers: records, and the page made from them.

    tools/anchor_results.py measure MODEL... --kedge build/release/kedge --text models/demo-text.txt --out anchor.json
    tools/anchor_results.py page anchor.json --out docs/results/anchor.md --plot docs/results/anchor.svg
    tools/anchor_results.py bench bench-mcqsmoe-split.json ... --out docs/results/mcqsmoe-bench.md

measure quantizes the experts alone (everything else stays as it is) and audits the result; then it quantizes models of
the first E experts of each layer, and models whose experts are one expert and `own` times as much noise, for the error of
the weights over E. Needs numpy.
"""
import argparse
import json
import math
import pathlib
import shutil
import subprocess
import tempfile

PLAIN = ["w2a16-g64", "w3a16-g64", "w4a16-g64", "w8a16-g64"]
ANCHORED = ["anchor-int2-g64", "anchor-int2-g64-int8", "anchor-int4-g64", "anchor-int4-g64-int8", "anchor-int4-g64-sphere"]
SWEPT = ["anchor-int2-g64-int8", "anchor-int4-g64", "anchor-int4-g64-int8"]
ANCHOR_BITS = {"anchor-int2-g64-int8": 8.25, "anchor-int4-g64": 16.0, "anchor-int4-g64-int8": 8.25}
METHODS = ["rtn", "gptq", "kedge"]


def call(kedge, *arguments):
    done = subprocess.run([kedge, *map(str, arguments), "--quiet", "--json"], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, arguments))}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def quantize(kedge, model, to, scheme, method, *more):
    shutil.rmtree(to, ignore_errors=True)
    result = call(kedge, "quantize", model, to, "--scheme", scheme, "--method", method, "--override", "*.self_attn.*=none", *more)
    experts = next(g for g in result["results"]["groups"] if g["role"] == "expert")
    manifest = json.loads((to / "kedge.manifest.json").read_text())
    layers = manifest.get("layers", [])
    row = {"scheme": scheme, "method": method, "bits": experts["bits_per_weight"], "weight_error": experts["relative_rms_error"]}
    if layers and "state_error" in layers[-1]:
        row["output_error"] = layers[-1]["state_error"]
    shared = [a["shared"] for layer in layers for a in layer.get("anchors", {}).values()]
    if shared:
        row["shared"] = sum(shared) / len(shared)
    aligned = [layer["alignment"] for layer in layers if "alignment" in layer]
    if aligned:
        row["shared_before"] = sum(a["shared_before"] for a in aligned) / len(aligned)
        row["shared_after"] = sum(a["shared_after"] for a in aligned) / len(aligned)
    return row


def experts_key(config):
    return next(key for key in ("num_experts", "num_local_experts", "n_routed_experts") if key in config)


def read_model(folder):
    import numpy as np
    raw = (folder / "model.safetensors").read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:8 + size])
    header.pop("__metadata__", None)
    tensors = {}
    for name, info in header.items():
        begin, end = info["data_offsets"]
        if info["dtype"] != "BF16":
            raise SystemExit(f"{folder}: {name} is {info['dtype']}, expected BF16")
        words = np.frombuffer(raw, "<u2", (end - begin) // 2, 8 + size + begin).astype(np.uint32) << 16
        tensors[name] = words.view(np.float32).reshape(info["shape"])
    return json.loads((folder / "config.json").read_text()), tensors


def write_model(folder, config, tensors):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    header, at = {}, 0
    for name, values in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [at, at + values.nbytes]}
        at += values.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(folder / "model.safetensors", "wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for values in tensors.values():
            out.write(values.astype("<f4").tobytes())


def variant(config, tensors, experts, own):
    """The first experts of each layer; own: None, or the share of noise beside a copy of expert 0."""
    import numpy as np
    rng = np.random.default_rng(1)
    config = dict(config, num_experts_per_tok=min(config["num_experts_per_tok"], experts), torch_dtype="float32")
    config[experts_key(config)] = experts
    out = {}
    for name, values in tensors.items():
        if name.endswith(".mlp.gate.weight"):
            out[name] = values[:experts]
        elif ".experts." in name:
            head, tail = name.split(".experts.")
            expert, part = tail.split(".", 1)
            if int(expert) >= experts:
                continue
            if own is not None:
                base = tensors[f"{head}.experts.0.{part}"]
                values = base + own * base.std() * rng.standard_normal(base.shape, dtype=np.float32)
            out[name] = values
        else:
            out[name] = values
    return config, out


def chance(experts, hidden, units):
    """Share of the mean after the same alignment of random experts, which share nothing. Needs scipy."""
    import numpy as np
    from scipy.optimize import linear_sum_assignment
    rng = np.random.default_rng(0)
    own = rng.standard_normal((experts, units, 3 * hidden)).astype(np.float32)
    total = own[0].copy()
    for e in range(1, experts):
        own[e] = own[e][linear_sum_assignment(-(total @ own[e].T))[1]]
        total += own[e]
    for e in range(experts):
        total -= own[e]
        own[e] = own[e][linear_sum_assignment(-(total @ own[e].T))[1]]
        total += own[e]
    share = float((total.astype(np.float64) ** 2).sum() / experts / (own.astype(np.float64) ** 2).sum())
    return {"experts": experts, "hidden_size": hidden, "intermediate_size": units, "shared": share}


def measure(arguments):
    records = {"schema": "kedge.anchor-results/1", "models": [], "sweeps": []}
    if arguments.out.exists():  # models that are on record are not measured again
        records = json.loads(arguments.out.read_text())
    done = {model["model"] for model in records["models"]}
    kedge = str(arguments.kedge.resolve())
    if arguments.chance:
        records["chance"] = chance(*arguments.chance)
    records["kedge"] = subprocess.run([kedge, "--version"], capture_output=True, text=True).stdout.strip()
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        for model in arguments.models:
            rows = []
            if model.name in done:
                continue
            for scheme in PLAIN + arguments.schemes:
                for method in arguments.methods:
                    row = quantize(kedge, model, scratch / "q", scheme, method, "--nsamples", arguments.nsamples, "--seqlen", 256)
                    audit = call(kedge, "audit", model, scratch / "q", "--text", arguments.text, "--seqlen", 256, "--limit", arguments.limit)
                    mean = audit["results"]["mean"]
                    row["kld"] = mean["kld"]["mean"]
                    row["one_minus_jaccard"] = 1 - mean["jaccard"]["mean"]
                    rows.append(row)
                    print(model.name, row, flush=True)
            config = json.loads((model / "config.json").read_text())
            records["models"].append({"model": model.name, "experts": config[experts_key(config)], "sequences": arguments.nsamples,
                                      "audited": arguments.limit, "rows": rows})
            arguments.out.write_text(json.dumps(records, indent=1) + "\n")
        for model in arguments.models:
            if any(sweep["model"] == model.name for sweep in records["sweeps"]):
                continue
            config, tensors = read_model(model)
            kinds = [None] + (arguments.own if model == arguments.models[0] else [])
            for own in kinds:
                experts = 2
                while experts <= config[experts_key(config)]:
                    shutil.rmtree(scratch / "v", ignore_errors=True)
                    write_model(scratch / "v", *variant(config, tensors, experts, own))
                    rows = [quantize(kedge, scratch / "v", scratch / "q", scheme, "rtn") for scheme in PLAIN + SWEPT]
                    records["sweeps"].append({"model": model.name, "own": own, "experts": experts, "rows": rows})
                    print(model.name, own, experts, flush=True)
                    experts *= 2
            arguments.out.write_text(json.dumps(records, indent=1) + "\n")


def bits_of_plain(rows, error, method, key):
    """Bits at which plain groups have this error: its log2 runs straight between two widths."""
    points = sorted((r["bits"], math.log2(r[key])) for r in rows if r["scheme"] in PLAIN and r["method"] == method)
    wanted = math.log2(error)
    for (b0, e0), (b1, e1) in zip(points, points[1:]):
        if wanted >= e1 or (b1, e1) == points[-1]:
            return b0 + (b1 - b0) * (wanted - e0) / (e1 - e0)


def gain(rows, scheme, method="rtn", key="weight_error"):
    row = next(r for r in rows if r["scheme"] == scheme and r["method"] == method)
    return bits_of_plain(rows, row[key], method, key) - row["bits"]


def predicted(row, scheme, experts):
    return -0.5 * math.log2(1 - row["shared"]) - ANCHOR_BITS[scheme] / experts


def percent(value, digits=2):
    return f"{100 * value:.{digits}f} %"


def model_table(model):
    text = f"\n### {model['model']}, {model['experts']} experts\n\n"
    text += f"Calibrated on {model['sequences']} sequences of 256 tokens, audited on {model['audited']}.\n\n"
    text += "| experts in | method | bits/weight | weight error | output error | KLD | 1 − Jaccard |\n|---|---|---:|---:|---:|---:|---:|\n"
    for row in sorted(model["rows"], key=lambda r: (METHODS.index(r["method"]), r["bits"])):
        output = percent(row["output_error"]) if "output_error" in row else ""
        text += (f"| {row['scheme']} | {row['method']} | {row['bits']:.2f} | {percent(row['weight_error'])} | {output} | "
                 f"{row['kld']:.5f} | {percent(row['one_minus_jaccard'])} |\n")
    return text


def sweep_tables(records):
    text = ""
    keys = []
    for sweep in records["sweeps"]:
        if (sweep["model"], sweep["own"]) not in keys:
            keys.append((sweep["model"], sweep["own"]))
    text += "\n| experts of | E | share of the anchor | " + " | ".join(f"{s}" for s in SWEPT) + " |\n"
    text += "|---|---:|---:|" + "---:|" * len(SWEPT) + "\n"
    for model, own in keys:
        label = f"{model}, the first E" if own is None else f"one expert of {model} + {own:g} of its own"
        for sweep in records["sweeps"]:
            if (sweep["model"], sweep["own"]) != (model, own):
                continue
            cells = []
            for scheme in SWEPT:
                row = next(r for r in sweep["rows"] if r["scheme"] == scheme)
                cells.append(f"{gain(sweep['rows'], scheme):+.2f} ({predicted(row, scheme, sweep['experts']):+.2f})")
            share = next(r for r in sweep["rows"] if r["scheme"] == SWEPT[0])["shared"]
            text += f"| {label} | {sweep['experts']} | {percent(share, 1)} | " + " | ".join(cells) + " |\n"
    return text


def winners(records):
    """From which E on a scheme beats plain integers, by measurement and by formula."""
    text = "\n| experts of | scheme | wins from E (measured) | wins from E (formula, share at the largest E) |\n|---|---|---:|---:|\n"
    groups = {}
    for sweep in records["sweeps"]:
        groups.setdefault((sweep["model"], sweep["own"]), []).append(sweep)
    for (model, own), sweeps in groups.items():
        label = model if own is None else f"one expert + {own:g} of its own"
        for scheme in SWEPT:
            won = [s["experts"] for s in sweeps if gain(s["rows"], scheme) > 0]
            lost = [s["experts"] for s in sweeps if gain(s["rows"], scheme) <= 0]
            first = min((e for e in won if not lost or e > max(lost)), default=None)
            share = next(r for r in sweeps[-1]["rows"] if r["scheme"] == scheme)["shared"]
            formula = 2 * ANCHOR_BITS[scheme] / -math.log2(1 - share)
            measured = f"{first}" if first else f"not up to {max(s['experts'] for s in sweeps)}"
            text += f"| {label} | {scheme} | {measured} | {formula:.1f} |\n"
    return text


def verdict(records):
    """The figures in sentences."""
    lines = []
    rows_of = {model["model"]: model["rows"] for model in records["models"]}
    groups = {}
    for sweep in records["sweeps"]:
        groups.setdefault((sweep["model"], sweep["own"]), []).append(sweep)
    for (model, own), sweeps in groups.items():
        if own is not None:
            continue
        last = max(sweeps, key=lambda s: s["experts"])
        share = next(r for r in last["rows"] if r["scheme"] == SWEPT[0])["shared"]
        gains = ", ".join(f"{scheme} {gain(last['rows'], scheme):+.2f}" for scheme in SWEPT)
        lines.append(f"- **{model}**, {last['experts']} experts trained from scratch: the anchor takes away {percent(share, 1)} of the squared "
                     f"weights (unrelated experts in any fixed order: {percent(1 / last['experts'], 1)}). Bits gained over plain integers of equal "
                     f"weight error, rtn: {gains}. Of equal KLD, kedge: "
                     + ", ".join(f"{scheme} {gain(rows_of[model], scheme, 'kedge', 'kld'):+.2f}" for scheme in SWEPT) + ".")
    if "chance" in records:
        c = records["chance"]
        lines.append(f"- Much of that share is chance: of {c['experts']} random experts ({c['hidden_size']} x {c['intermediate_size']}), aligned in "
                     f"the same way, the anchor takes away {percent(c['shared'], 1)}.")
    made = [(own, sweeps) for (_, own), sweeps in groups.items() if own is not None]
    for own, sweeps in made:
        last = max(sweeps, key=lambda s: s["experts"])
        gains = ", ".join(f"{scheme} {gain(last['rows'], scheme):+.2f}" for scheme in SWEPT)
        lines.append(f"- Experts that are one expert and {own:g} times as much of their own, {last['experts']} of them: {gains}.")
    return "\n".join(lines)


def plot(records, path):
    """Weight error (log) against bits, a panel per model: plain as a line, anchors as marks; rtn."""
    width, height, left, top = 300, 260, 56, 40
    models = records["models"]
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {len(models) * (width + left) + 20} {height + 110}" '
             'font-family="sans-serif" font-size="11">', '<rect width="100%" height="100%" fill="white"/>']
    low, high, least, most = 2, 9, math.log10(0.002), math.log10(0.6)
    for m, model in enumerate(models):
        x0 = left + m * (width + left)
        x = lambda bits: x0 + (bits - low) / (high - low) * width
        y = lambda error: top + (most - math.log10(error)) / (most - least) * height
        parts.append(f'<text x="{x0}" y="{top - 14}" font-size="13">{model["model"]}, {model["experts"]} experts</text>')
        for bits in range(2, 10):
            parts.append(f'<path d="M{x(bits):.1f} {top}V{top + height}" stroke="#e4e4e4"/>'
                         f'<text x="{x(bits):.1f}" y="{top + height + 16}" text-anchor="middle">{bits}</text>')
        for error in (0.003, 0.01, 0.03, 0.1, 0.3):
            parts.append(f'<path d="M{x0} {y(error):.1f}H{x0 + width}" stroke="#e4e4e4"/>'
                         f'<text x="{x0 - 6}" y="{y(error) + 4:.1f}" text-anchor="end">{100 * error:g} %</text>')
        for method, colour in (("rtn", "#4464ad"), ("kedge", "#c44536")):
            plain = sorted((r["bits"], r["weight_error"]) for r in model["rows"] if r["scheme"] in PLAIN and r["method"] == method)
            line = " ".join(f"{x(b):.1f},{y(e):.1f}" for b, e in plain)
            parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
            for r in model["rows"]:
                if r["method"] != method:
                    continue
                at = (x(r["bits"]), y(r["weight_error"]))
                if r["scheme"] in PLAIN:
                    parts.append(f'<circle cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="3" fill="{colour}"/>')
                else:
                    parts.append(f'<path d="M{at[0] - 4:.1f} {at[1] - 4:.1f}l8 8m0 -8l-8 8" stroke="{colour}" stroke-width="1.8">'
                                 f'<title>{r["scheme"]}, {method}</title></path>')
        parts.append(f'<text x="{x0 + width / 2}" y="{top + height + 34}" text-anchor="middle">bits per expert weight</text>')
    base = top + height + 58
    parts.append(f'<g transform="translate({left},{base})"><circle cx="4" cy="-4" r="3"/><text x="12" y="0">plain integers, groups of 64</text>'
                 '<path d="M200 -8l8 8m0 -8l-8 8" stroke="black" stroke-width="1.8"/><text x="214" y="0">shared anchor + deltas</text>'
                 '<rect x="380" y="-9" width="9" height="9" fill="#4464ad"/><text x="394" y="0">rtn</text>'
                 '<rect x="430" y="-9" width="9" height="9" fill="#c44536"/><text x="444" y="0">kedge</text>'
                 '<text x="500" y="0">relative error of the weights</text></g></svg>')
    path.write_text("\n".join(parts) + "\n")


def page(arguments):
    records = json.loads(arguments.records.read_text())
    plot(records, arguments.plot)
    text = f"""# Experts on shared anchors: error against bits

Generated by `tools/anchor_results.py page` from [records/{arguments.records.name}](records/{arguments.records.name}) ({records['kedge']}; `tools/anchor_results.py
measure` makes them again). Experts alone are quantized, in groups of 64; attention, routers, embeddings and head stay as
they are. *Weight error* is the RMS error of the experts' weights over their RMS; *output error* the same of the hidden
states after the last layer, on the calibration data (methods that calibrate); KLD and 1 − Jaccard are those of `kedge audit`
on `models/demo-text.txt`. bits/weight has codes, scales, the anchor's share and row norms; plain integers have two scale
bytes per group too, and a shape of 16 bytes per matrix.

![Weight error against bits](anchor.svg)

{verdict(records)}
"""
    for model in records["models"]:
        text += model_table(model)
    text += """
## Over the number of experts

By rtn, weights alone. Bits gained: how many bits per weight plain integers (round to nearest, interpolated between 2, 3, 4 and 8 bits) need for the
error that the anchor and its deltas have, less the bits that these take. Above 0 the anchor wins. In parentheses the
formula: log2(1 / (1 − share)) / 2 − b_anchor / E, with the share of the experts' squared weights that the anchor takes away.
"""
    text += sweep_tables(records)
    text += winners(records)
    arguments.out.write_text(text)


def bench_page(arguments):
    """Records of `kedge bench mcqsmoe --json`, one per form of the anchor."""
    text = """# The layers of the MCQSMoE papers: speed

Generated by `tools/anchor_results.py bench` from records of `kedge bench mcqsmoe`: random weights, int4 deltas in groups of 64
on an fp16 anchor, rows on the sphere, fp32 activations, consistent numerics. serial to workspace: d 1024, r 128, FFN of
4096, E 8, k 2, 32 tokens; small: d 256, r 64, E 16; large: d 512, r 128, E 32, 64 tokens (both: the autoencoders are the
experts). *x one thread*: speed over the same row on one thread, the median over the turns. *x stored*, *x active*: over a dense
two-matrix int4 layer of equal stored parameters, and of equal active FLOPs (routing and k experts), medians over medians;
*x active fp32*: over the latter with fp32 weights. All of them take turns with the row. Routing is counted, and measured by itself.

Fused, the anchor is decoded once per batch, some rows at a time, and an expert's weight made of it and the delta in registers:
what the model counts is computed, but a weight is made for 8 rows (32 tokens, 2 of 8 experts) where a dense layer's 4 bits are
unpacked for 32. On AVX-512 sixteen such weights take 3.5 vector operations to make, sixteen of a dense layer's 2, and each row
one multiply-add; by this count alone the layer reaches at most 0.74 of the speed of a dense one of equal active FLOPs at 32
tokens, 0.85 at 64, 0.92 at 128, 0.96 at 256, and nowhere 1; beside fp32 weights, which need no unpacking, at most 0.70, 0.82, 0.90
and 0.95. Scaling the sums instead of the weights saves one of the 3.5 and
measured the same ([record](records/bench-mcqsmoe-row-scale.json): 0.59 and 0.59, with AVX2 0.65 and 0.64, medians of twelve).
Split, the layer computes 7/4 of the products that the model counts
(x A^T once per token for up, once per pair for down, whose rows are scaled on the sphere). Decoded into fp32 it computes what
the model counts and reads several times the bytes.
Where the autoencoders are the experts (small, large), every encoder runs for every token: no sparsity of compute.

By turns with a build that decoded the anchor once per expert, its speed over a dense layer of equal active FLOPs, both measured in one run
([record](records/bench-mcqsmoe-shared-anchor.json): 2f7362c before, a7e9151 after, serial to workspace, two rounds of 15
repetitions; medians of the eight, lowest and highest): 0.50 (0.48 to 0.70) and 0.59 (0.56 to 0.64) at 32 tokens, with AVX2 0.60
(0.56 to 0.67) and 0.64 (0.56 to 0.69), at 256 tokens 0.85 and 0.87. Tokens per second swung twofold meanwhile and compare nothing.
The machine's speed swings up to twofold within a run: compare what took turns (the columns with an x), not tokens per second of
different rows.

"""
    for path in arguments.records:
        record = json.loads(path.read_text())
        results, provenance = record["results"], record["provenance"]
        limits = results["limits"]
        tokens = record["config"].get("tokens", 0)
        text += f"\n## Anchors {record['config']['form']}{f', {tokens} tokens' if tokens else ''}\n\n"
        text += ("| row | threads | tokens/s | range | x one thread | GFLOP/s | of peak | GB/s of weights | of memory | "
                 "routing FLOPs / experts' | routing time | x stored | x active | x active fp32 |\n"
                 "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n")
        for row in results["rows"]:
            rate = row["tokens_per_second"]
            dense = [row[key]["speedup"] for key in ("dense_of_equal_stored_parameters", "dense_of_equal_active_flops",
                                                     "fp32_dense_of_equal_active_flops")]
            text += (f"| {row['name']} | {row['threads']} | {rate['median']:,.0f} | {rate['lowest']:,.0f} to {rate['highest']:,.0f} | "
                     f"{row['on_one_thread']['speedup']:.2f} | "
                     f"{row['gflop_per_s']:.1f} | {percent(row['share_of_fp32_peak'], 0)} | {row['gb_per_s']:.2f} | "
                     f"{percent(row['share_of_memory_read'], 0)} | {percent(row['routing']['share_of_expert_flops'], 1)} | "
                     f"{percent(row['routing']['share_of_time'], 1)} | {' | '.join(f'{times:.2f}' for times in dense)} |\n")
        flops, read = limits["fp32_gflop_per_s"], limits["dram_read_gb_per_s"]
        text += (f"\nLimits measured before: {flops['one_thread']:.1f} GFLOP/s on one thread, {flops['all_threads']:.1f} on all; memory "
                 f"read {read['one_thread']:.1f} and {read['all_threads']:.1f} GB/s. {provenance_line(provenance)}\n")
    arguments.out.write_text(text)


def provenance_line(provenance):
    return (f"kedge {provenance['git_hash']} ({provenance['build_type']} build), {provenance['cpu']}, {provenance['isa']}, "
            f"{provenance['threads']} threads, {provenance['date'][:10]}.")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    measuring = commands.add_parser("measure")
    measuring.add_argument("models", nargs="+", type=pathlib.Path)
    measuring.add_argument("--kedge", type=pathlib.Path, required=True)
    measuring.add_argument("--text", type=pathlib.Path, required=True)
    measuring.add_argument("--nsamples", type=int, default=32)
    measuring.add_argument("--limit", type=int, default=16)
    measuring.add_argument("--chance", nargs=3, type=int, metavar=("EXPERTS", "HIDDEN", "UNITS"),
                           help="also align random experts of this shape (needs scipy)")
    measuring.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    measuring.add_argument("--schemes", nargs="+", default=ANCHORED, choices=ANCHORED)
    measuring.add_argument("--own", type=float, nargs="*", default=[0.1, 0.25, 0.5, 1.0])
    measuring.add_argument("--out", type=pathlib.Path, required=True)
    measuring.set_defaults(run=measure)
    making = commands.add_parser("page")
    making.add_argument("records", type=pathlib.Path)
    making.add_argument("--out", type=pathlib.Path, required=True)
    making.add_argument("--plot", type=pathlib.Path, required=True)
    making.set_defaults(run=page)
    timing = commands.add_parser("bench")
    timing.add_argument("records", nargs="+", type=pathlib.Path)
    timing.add_argument("--out", type=pathlib.Path, required=True)
    timing.set_defaults(run=bench_page)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
