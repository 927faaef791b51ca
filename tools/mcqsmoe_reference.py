#!/usr/bin/env python3
"""A kedge_mcqsmoe language model in float64 PyTorch: what the engine is compared with, layer by layer.

usage: tools/mcqsmoe_reference.py check MODEL [--masters DIR] [--kedge PROGRAM] [--text FILE] [--limit N] [--json FILE]
       tools/mcqsmoe_reference.py golden FOLDER

Written from the MCQSMoE paper, docs/formats/anchor-delta.md, docs/formats/kedge-mcqsmoe.md and Llama's attention, not from
the engine. `check` first compares the anchors' hashes with the manifests and prints the memory of each layer, row scales
included; then `kedge trace` runs the model, and each layer is computed from the engine's own input with the same stored
weights, routing included. It fails where a layer's output is further than 1e-4 from the engine's, or 0.005 % in root mean
square, where a choice differs although its margin exceeds 1e-5, or where a row of a retracted matrix is off its manifold.
With --masters (the fp32 checkpoint) it also says what rounding costs each layer. `golden` writes the small model that
src/model/mcqsmoe_test.cc runs. Needs torch and safetensors.
"""
import argparse
import hashlib
import json
import math
import pathlib
import subprocess
import sys
import tempfile

import torch
from safetensors.torch import load_file, save_file

import make_mcqsmoe_goldens as layers

MAX_ABS, MAX_NRMSE, MARGIN, ROW_NORM, ORTHONORMAL = 1e-4, 5e-5, 1e-5, 1e-6, 1e-5


def unpack(words, bits, count):
    """int32 [..., W] -> unsigned codes [..., count], least significant bit first."""
    per_word = 32 // bits
    shifts = torch.arange(per_word) * bits
    codes = (words.to(torch.int64)[..., None] & 0xFFFFFFFF) >> shifts & (2 ** bits - 1)
    return codes.flatten(-2)[..., :count]


def groups(codes, scale):
    return (codes.reshape(*scale.shape, -1).double() * scale.double()[..., None]).flatten(-2)


def decode_stack(tensors, name, manifest):
    """[E, N, K] of a stack without masks; exits where the anchor is of another hash."""
    anchor = tensors[f"{name}.anchor"]
    raw = anchor.view(torch.int16) if anchor.dtype != torch.int8 else anchor
    digest = hashlib.sha256(raw.numpy().tobytes())
    if anchor.dtype == torch.int8:
        scale = tensors[f"{name}.anchor_scale"]
        digest.update(scale.view(torch.int16).numpy().tobytes())
        base = groups(anchor, scale)
    else:
        base = anchor.double()
    if digest.hexdigest() != manifest["anchor_sha256"]:
        sys.exit(f"{name}: the anchor's hash is not the manifest's")
    if manifest["masks"]:
        sys.exit(f"{name} has 2:4 masks, which no trained model has")
    codes = unpack(tensors[f"{name}.delta_packed"], manifest["num_bits"], manifest["cols"])
    total = base + groups(codes - 2 ** (manifest["num_bits"] - 1), tensors[f"{name}.delta_scale"])
    if manifest["manifold"] == "sphere":
        return total * tensors[f"{name}.row_scale"].double()[..., None]
    return torch.stack([layers.retract(w, manifest["manifold"], None) for w in total])


class Model:
    def __init__(self, folder):
        self.config = json.loads((folder / "config.json").read_text())
        self.tensors = load_file(folder / "model.safetensors")
        self.stacks = (self.config.get("quantization_config") or {}).get("stacks", {})
        self.heads = self.config["num_attention_heads"]
        self.eps = self.config["rms_norm_eps"]

    def tensor(self, name):
        return self.tensors[name].double()

    def is_dense(self, layer):
        return layer in self.config.get("mlp_only_layers", [])

    def experts(self, layer, projection):
        name = f"model.layers.{layer}.mlp.experts.{projection}"
        if name in self.stacks:
            return decode_stack(self.tensors, name, self.stacks[name])
        return torch.stack([self.tensor(f"model.layers.{layer}.mlp.experts.{e}.{projection}.weight")
                            for e in range(self.config["num_experts"])])

    def norm(self, x, name):
        return x / torch.sqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.tensor(name)

    def rotate(self, x):
        """[S, L, heads, D]: Llama's rotation, halves of a head as pairs."""
        half = x.shape[-1] // 2
        frequency = self.config.get("rope_theta", 10000.0) ** (-torch.arange(half).double() / half)
        angle = torch.arange(x.shape[1]).double()[:, None] * frequency
        cos, sin = angle.cos()[:, None], angle.sin()[:, None]
        a, b = x[..., :half], x[..., half:]
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

    def attention(self, layer, x):
        """x: [S, L, H]."""
        prefix = f"model.layers.{layer}.self_attn."
        q, k, v = (torch.einsum("slh,oh->slo", x, self.tensor(f"{prefix}{p}_proj.weight")).unflatten(-1, (self.heads, -1))
                   for p in "qkv")
        scores = torch.einsum("sqhd,skhd->shqk", self.rotate(q), self.rotate(k)) / math.sqrt(q.shape[-1])
        length = x.shape[1]
        scores = scores.masked_fill(torch.ones(length, length).triu(1).bool(), -math.inf)
        out = torch.einsum("shqk,skhd->sqhd", torch.softmax(scores, -1), v).flatten(-2)
        return torch.einsum("slo,ho->slh", out, self.tensor(f"{prefix}o_proj.weight"))

    def temperature(self, layer):
        own = 1.0
        if self.config.get("router_temperature_trained"):
            own = self.tensor(f"model.layers.{layer}.mlp.gate.log_temperature").exp().item()
        return own * self.config.get("router_temperature", 0.1)

    def case(self, layer):
        """The layer's options under make_mcqsmoe_goldens' names."""
        c = self.config
        return {"measure": c.get("router_error", "squared"), "normalization": c.get("router_error_normalization", "input"),
                "huber_delta": c.get("router_huber_delta", 1.0), "temperature": self.temperature(layer),
                "combine": c.get("router_combine", "softmin"), "activation": c.get("router_hidden_act", "linear"),
                "num_experts_per_tok": c["num_experts_per_tok"], "output": "ffn", "hidden_act": c["hidden_act"],
                "gated": c.get("mlp_gated", False)}

    def routed(self, layer, x):
        """x: [T, H] -> errors (negated logits of a learned router), ids, weights, y."""
        experts, d = self.config["num_experts"], x.shape[1]
        gate = self.tensor(f"model.layers.{layer}.mlp.gate.weight")
        weights = {"up": self.experts(layer, "up_proj"), "down": self.experts(layer, "down_proj")}
        if self.config.get("mlp_gated"):
            weights["gate"] = self.experts(layer, "gate_proj")
        if self.config.get("router_error") == "linear":
            return self.by_logits(x, x @ gate.T, weights)
        weights["encoder"] = gate.reshape(experts, -1, d)
        weights["decoder"] = weights["encoder"].transpose(1, 2)
        return layers.layer(self.case(layer), x, weights)

    def by_logits(self, x, logits, w):
        k = self.config["num_experts_per_tok"]
        chosen, ids = (-logits).sort(dim=-1, stable=True)
        weights = torch.softmax(-chosen[:, :k] / self.config.get("router_temperature", 1.0), -1)
        h = layers.act(self.config["hidden_act"], torch.einsum("efd,td->tef", w["up"], x))
        out = torch.einsum("edf,tef->ted", w["down"], h)
        picked = out.gather(1, ids[:, :k, None].expand(-1, -1, x.shape[1]))
        return -logits, ids[:, :k], weights, (weights[..., None] * picked).sum(1)

    def dense(self, layer, x):
        prefix = f"model.layers.{layer}.mlp."
        return layers.act(self.config["hidden_act"], x @ self.tensor(prefix + "up_proj.weight").T) @ self.tensor(
            prefix + "down_proj.weight").T

    def layer(self, layer, h):
        """h: [S, L, H] -> the layer's output, and its routing (None where it is dense)."""
        prefix = f"model.layers.{layer}."
        h = h + self.attention(layer, self.norm(h, prefix + "input_layernorm.weight"))
        x = self.norm(h, prefix + "post_attention_layernorm.weight").flatten(0, 1)
        if self.is_dense(layer):
            return h + self.dense(layer, x).view_as(h), None
        routing = self.routed(layer, x)
        return h + routing[3].view_as(h), routing

    def embed(self, ids):
        return self.tensor("model.embed_tokens.weight")[ids.long()]

    def logits(self, normed):
        tied = self.config.get("tie_word_embeddings", False)
        return normed @ self.tensor("model.embed_tokens.weight" if tied else "lm_head.weight").T


def memory(model):
    """Bytes by layer: experts, row scales among them, encoders, all else; and in total."""
    out = {}
    for name, tensor in model.tensors.items():
        layer = name.split(".")[2] if name.startswith("model.layers.") else "outside"
        part = "row scales" if name.endswith(".row_scale") else "experts" if ".experts." in name else \
            "router" if ".mlp.gate" in name else "other"
        row = out.setdefault(layer, {})
        row[part] = row.get(part, 0) + tensor.numel() * tensor.element_size()
    return out


def off_manifold(model, layer):
    """Largest distance of a row's norm from 1 over all retracted experts; of the encoders from orthonormal."""
    rows = [(model.experts(layer, p).norm(dim=-1) - 1).abs().max().item() for p in ("up_proj", "down_proj")
            if model.config.get("expert_manifold", "sphere") == "sphere"]
    orthonormal = 0.0
    if model.config.get("router_manifold", "none").startswith("stiefel"):
        u = model.tensor(f"model.layers.{layer}.mlp.gate.weight").reshape(model.config["num_experts"], -1,
                                                                          model.config["hidden_size"])
        orthonormal = (u @ u.transpose(1, 2) - torch.eye(u.shape[1])).abs().max().item()
    return max(rows, default=0.0), orthonormal


def distance(a, b):
    """max_abs, NRMSE of a against the reference b."""
    return (a - b).abs().max().item(), ((a - b).square().mean().sqrt() / b.square().mean().sqrt()).item()


def compare_routing(model, routing, trace, layer):
    """(choices that differ beyond the margin, choices within it, largest difference of an error)."""
    errors, ids, _, _ = routing
    k = ids.shape[1]
    ranked = errors.sort(dim=-1).values
    narrow = (ranked[:, 1:k + 1] - ranked[:, :k]).amin(-1) <= MARGIN if errors.shape[1] > k else \
        torch.zeros(len(errors), dtype=torch.bool)
    differs = (ids != trace[f"topk_ids.{layer}"].long()).any(-1)
    theirs = trace.get(f"all_errors.{layer}")
    gap = (errors - theirs.double()).abs().max().item() if theirs is not None else float("nan")
    return int((differs & ~narrow).sum()), int(narrow.sum()), gap


def check(options):
    model = Model(options.model)
    masters = Model(options.masters) if options.masters else None
    for layer, parts in memory(model).items():
        print(f"layer {layer}: " + ", ".join(f"{k} {v:,} bytes" for k, v in parts.items()))
    print(f"in total {sum(sum(p.values()) for p in memory(model).values()):,} bytes")
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "trace.safetensors"
        subprocess.run([options.kedge, "trace", options.model, "--text", options.text, "--limit", str(options.limit),
                        "--seqlen", str(options.seqlen), "--hidden-states", "--logits", "--out", path], check=True,
                       stdout=subprocess.DEVNULL)
        trace = load_file(path)
    count = model.config["num_hidden_layers"]
    results, failed = [], False
    free = model.embed(trace["input_ids"])
    for layer in range(count):
        h = trace[f"hidden_states.{layer}"].double()
        ours, routing = model.layer(layer, h)
        free, _ = model.layer(layer, free)
        if layer == count - 1:
            ours = model.norm(ours, "model.norm.weight")
        max_abs, nrmse = distance(trace[f"hidden_states.{layer + 1}"].double(), ours)
        largest = ours.abs().max().item()
        row = {"layer": layer, "max_abs": max_abs, "nrmse": nrmse, "largest": largest}
        text = f"layer {layer}: max_abs {max_abs:.2e} where the largest is {largest:.1f}, NRMSE {100 * nrmse:.2e} %"
        bad = max_abs > MAX_ABS or nrmse > MAX_NRMSE
        if routing is not None:
            wrong, narrow, gap = compare_routing(model, routing, trace, layer)
            norms, orthonormal = off_manifold(model, layer)
            row.update({"other_choices": wrong, "narrow_choices": narrow, "error_max_abs": gap, "row_norm_error": norms,
                        "orthonormality_error": orthonormal})
            text += f", errors {gap:.1e}, {wrong} other choices ({narrow} within the margin), row norms {norms:.1e}, " \
                    f"encoders {orthonormal:.1e}"
            bad |= wrong > 0 or norms > ROW_NORM or orthonormal > ORTHONORMAL
        if masters:
            smooth, _ = masters.layer(layer, h)
            if layer == count - 1:
                smooth = masters.norm(smooth, "model.norm.weight")
            row["rounding_nrmse"] = distance(ours, smooth)[1]
            text += f", rounding {100 * row['rounding_nrmse']:.2f} %"
        print(text + (" FAILED" if bad else ""))
        failed |= bad
        results.append(row)
    max_abs, nrmse = distance(trace["logits"].double(), model.logits(model.norm(free, "model.norm.weight")))
    print(f"logits, all layers one after the other: max_abs {max_abs:.2e}, NRMSE {100 * nrmse:.2e} %")
    if options.json:
        options.json.write_text(json.dumps({"layers": results, "logits": {"max_abs": max_abs, "nrmse": nrmse}}, indent=1) + "\n")
    sys.exit(1 if failed else 0)


GOLDEN = {"model_type": "kedge_mcqsmoe", "vocab_size": 48, "hidden_size": 32, "num_hidden_layers": 3,
          "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 32, "rms_norm_eps": 1e-6,
          "rope_theta": 100.0, "tie_word_embeddings": True, "hidden_act": "gelu", "num_experts": 4,
          "num_experts_per_tok": 2, "moe_intermediate_size": 64, "router_error": "squared", "router_bottleneck": 8,
          "router_manifold": "stiefel-polar", "router_temperature": 0.1, "expert_delta_bits": 4, "expert_group_size": 32,
          "expert_anchor_dtype": "float16", "expert_manifold": "sphere", "mlp_only_layers": [1], "intermediate_size": 40,
          "dtype": "float32"}


def golden(options):
    config, generator = dict(GOLDEN), torch.Generator().manual_seed(7)
    d, f, experts = config["hidden_size"], config["moe_intermediate_size"], config["num_experts"]
    tensors, manifests = {"model.embed_tokens.weight": torch.randn(config["vocab_size"], d, generator=generator).float()}, {}
    def matrix(name, rows, cols):
        tensors[name] = (torch.randn(rows, cols, generator=generator) / cols ** 0.5).float()
    def vector(name):
        tensors[name] = (1 + 0.2 * torch.randn(d, generator=generator)).float()
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        vector(prefix + "input_layernorm.weight")
        vector(prefix + "post_attention_layernorm.weight")
        for p in "qkvo":
            matrix(f"{prefix}self_attn.{p}_proj.weight", d, d)
        if layer in config["mlp_only_layers"]:
            matrix(prefix + "mlp.up_proj.weight", config["intermediate_size"], d)
            matrix(prefix + "mlp.down_proj.weight", d, config["intermediate_size"])
            continue
        encoders = [layers.retract(torch.randn(config["router_bottleneck"], d, generator=generator), "stiefel-polar", None)
                    for _ in range(experts)]
        tensors[prefix + "mlp.gate.weight"] = torch.cat(encoders).float()
        for p, shape in (("up_proj", (f, d)), ("down_proj", (d, f))):
            name = f"{prefix}mlp.experts.{p}"
            stack = {"anchor_dtype": "F16", "num_bits": 4, "group_size": 32, "manifold": "sphere"}
            _, manifests[name] = layers.make_stack(name, layers.related(generator, experts, *shape), stack, tensors)
    vector("model.norm.weight")
    config["quantization_config"] = {"quant_method": "kedge", "format": "kedge.anchor-delta/1",
                                     "scheme": "anchor-int4-g32", "stacks": manifests, "others": None}
    options.model.mkdir(parents=True, exist_ok=True)
    (options.model / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    save_file({k: v.contiguous() for k, v in tensors.items()}, options.model / "model.safetensors")
    model = Model(options.model)
    ids = torch.randint(config["vocab_size"], (1, 24), generator=generator)
    h = model.embed(ids)
    expected = {"input_ids": ids.to(torch.int32), "hidden_states.0": h.float()}
    for layer in range(config["num_hidden_layers"]):
        h, routing = model.layer(layer, h)
        expected[f"hidden_states.{layer + 1}"] = h.float()
        if routing is None:
            continue
        errors, chosen, weights, _ = routing
        ranked = errors.sort(dim=-1).values
        print(f"layer {layer}: least margin {(ranked[:, 1:3] - ranked[:, :2]).amin():.1e}, counts "
              f"{torch.bincount(chosen.flatten(), minlength=experts).tolist()}")
        expected.update({f"router_logits.{layer}": (-errors / config["router_temperature"]).float(),
                         f"topk_ids.{layer}": chosen.to(torch.int32), f"topk_weights.{layer}": weights.float()})
    normed = model.norm(h, "model.norm.weight")  # as transformers has the last of the hidden states
    expected[f"hidden_states.{config['num_hidden_layers']}"] = normed.float()
    expected["logits"] = model.logits(normed).float()
    save_file({k: v.contiguous() for k, v in expected.items()}, options.model / "golden.safetensors")
    names = ["config.json", "golden.safetensors", "model.safetensors"]
    for name in names:
        (options.model / name).chmod(0o644)
    hashes = {name: hashlib.sha256((options.model / name).read_bytes()).hexdigest() for name in names}
    (options.model / "hashes.json").write_text(json.dumps(hashes, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["check", "golden"])
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--masters", type=pathlib.Path)
    root = pathlib.Path(__file__).resolve().parent.parent
    parser.add_argument("--kedge", default=root / "build/release/kedge")
    parser.add_argument("--text", default=root / "models/demo-text.txt")
    parser.add_argument("--limit", type=int, default=4)
    parser.add_argument("--seqlen", type=int, default=128)
    parser.add_argument("--json", type=pathlib.Path)
    options = parser.parse_args()
    (check if options.what == "check" else golden)(options)


if __name__ == "__main__":
    main()
