#!/usr/bin/env python3
"""Writes tests/goldens/mcqsmoe/: layers routed by reconstruction error, in float64 PyTorch.

Written from the formulas of the MCQSMoE paper (sections 2.1 to 2.3) and from docs/formats/anchor-delta.md, not from the
engine: every expert reconstructs every token, weights are put on their manifold by SVD, QR or division, quantized by the
formula of the format, and the layer is computed from the quantized weights. Needs torch and safetensors.

One file per case: the tokens x, the weights (a stack per the format, or a plain tensor), and what comes out: errors [T, E],
ids and weights [T, slots], y, residual_norms. Tokens whose choice is closer than 1e-3 of their errors are drawn anew, so
that the choice itself can be compared. hashes.json freezes the files.

usage: tools/make_mcqsmoe_goldens.py [FOLDER]
"""
import hashlib
import json
import pathlib
import sys

import numpy as np
import torch
from safetensors.torch import save_file

torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)

BASE = {"hidden_size": 32, "bottleneck": 8, "num_experts": 6, "num_experts_per_tok": 2, "tokens": 12,
        "measure": "squared", "normalization": "input", "huber_delta": 1.0, "temperature": 0.1, "combine": "softmin",
        "activation": "linear", "tied": True, "output": "reconstruction", "intermediate_size": 64,
        "hidden_act": "gelu", "gated": False, "orthonormal": False, "stacks": {}}
INT4 = {"anchor_dtype": "F16", "num_bits": 4, "group_size": 32, "manifold": "sphere"}
CASES = {
    "squared_tied_linear": {"stacks": {"encoder": INT4}},
    "squared_untied_residual": {"normalization": "none", "combine": "residual", "activation": "gelu", "tied": False,
                                "temperature": 5.0},
    "cosine_best": {"measure": "cosine", "normalization": "none", "combine": "best", "activation": "gelu",
                    "stacks": {"encoder": {**INT4, "anchor_dtype": "BF16"}}},
    "huber_uniform": {"measure": "huber", "normalization": "width", "huber_delta": 0.4, "combine": "uniform",
                      "activation": "silu", "num_experts_per_tok": 3},
    "ffn_gelu_norms": {"normalization": "width", "output": "ffn",
                       "stacks": {"encoder": INT4, "up": {**INT4, "anchor_dtype": "BF16", "norms": True},
                                  "down": {**INT4, "norms": True}}},
    "ffn_gated_masks_polar": {"combine": "residual", "output": "ffn", "gated": True, "hidden_act": "silu",
                              "orthonormal": True,
                              "stacks": {"encoder": {**INT4, "manifold": "stiefel-polar"},
                                         "gate": {**INT4, "anchor_dtype": "I8", "num_bits": 2, "norms": True},
                                         "up": {**INT4, "anchor_dtype": "I8", "masks": 2, "norms": True},
                                         "down": {**INT4, "num_bits": 2, "masks": 1, "norms": True}}},
    "ffn_gelu_qr": {"output": "ffn", "activation": "gelu", "temperature": 0.02, "orthonormal": True,
                    "stacks": {"encoder": {**INT4, "manifold": "stiefel-qr"}, "up": INT4, "down": INT4}},
    "cosine_qr_uniform": {"measure": "cosine", "normalization": "none", "combine": "uniform", "orthonormal": True,
                          "stacks": {"encoder": {**INT4, "manifold": "stiefel-qr"}}},
    "ffn_huber_untied": {"measure": "huber", "output": "ffn", "gated": True, "hidden_act": "gelu_tanh", "tied": False,
                         "bottleneck": 32,
                         "stacks": {"decoder": {**INT4, "manifold": "none"}, "up": {**INT4, "manifold": "none"}}},
    "toy_lm": {"hidden_size": 128, "bottleneck": 32, "num_experts": 4, "intermediate_size": 128, "tokens": 16,
               "output": "ffn", "stacks": {name: {**INT4, "group_size": 64} for name in ("encoder", "up", "down")}},
}


def retract(w, manifold, norms):
    """w [N, K] -> rows on the manifold; norms [N] of the sphere's rows."""
    if manifold == "sphere":
        return w / w.norm(dim=1, keepdim=True) * norms[:, None]
    if manifold == "stiefel-polar":
        u, _, vh = torch.linalg.svd(w, full_matrices=False)
        return u @ vh
    if manifold == "stiefel-qr":
        q, r = torch.linalg.qr(w.T)
        return (q * torch.sign(torch.diagonal(r))).T
    return w


def as_dtype(x, name):
    return x.to({"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}[name])


def groupwise(w, bits, group):
    """[N, K] -> signed codes, fp16 scales [N, G], decoded."""
    low, high = -2 ** (bits - 1), 2 ** (bits - 1) - 1
    parts = w.reshape(w.shape[0], -1, group)
    scale = as_dtype((parts.abs().amax(-1) / (high + 0.5)).clamp_min(2.0 ** -14), "F16")
    codes = torch.round(parts / scale.double()[..., None]).clamp(low, high)
    return codes.reshape(w.shape), scale, (codes * scale.double()[..., None]).reshape(w.shape)


def pack_bits(codes, bits):
    """Unsigned codes [..., K] -> int32 words, least significant bit first."""
    rows = codes.reshape(-1, codes.shape[-1]).to(torch.int64).numpy()
    words = np.zeros((rows.shape[0], -(-rows.shape[1] * bits // 32)), np.uint32)
    for i in range(rows.shape[1]):
        words[:, i * bits // 32] |= (rows[:, i].astype(np.uint32) << np.uint32(i * bits % 32))
    return torch.from_numpy(words.view(np.int32).copy()).reshape(*codes.shape[:-1], -1)


def two_of_four(strength):
    """[N, K] -> bool mask of the two largest of each four."""
    four = strength.reshape(strength.shape[0], -1, 4)
    mask = torch.zeros_like(four, dtype=torch.bool)
    mask.scatter_(-1, four.topk(2, dim=-1).indices, True)
    return mask.reshape(strength.shape)


def make_stack(name, w, config, tensors):
    """w [E, N, K] -> its quantized form in the file's layout; returns the decoded matrices and the manifest."""
    experts, rows, cols = w.shape
    bits, group, manifold = config["num_bits"], config["group_size"], config["manifold"]
    masks = config.get("masks", 0)
    norms = w.norm(dim=2).float().double() if config.get("norms") else torch.ones(experts, rows)
    # Directions are shared, norms are the experts' own.
    placed = torch.stack([retract(e, manifold, torch.ones(rows)) for e in w])
    anchor = placed.mean(0)
    digest = hashlib.sha256()
    if config["anchor_dtype"] == "I8":
        codes, scale, anchor = groupwise(anchor, 8, group)
        stored = codes.to(torch.int8)
        tensors[f"{name}.anchor_scale"] = scale
        digest.update(stored.numpy().tobytes() + scale.numpy().tobytes())
    else:
        stored = as_dtype(anchor, config["anchor_dtype"])
        anchor = stored.double()
        digest.update(stored.view(torch.int16).numpy().tobytes())
    tensors[f"{name}.anchor"] = stored
    delta = placed - anchor
    kept = torch.ones(experts, rows, cols, dtype=torch.bool)
    if masks:
        ids = torch.arange(experts) % masks
        patterns = torch.stack([two_of_four(delta[ids == m].square().sum(0)) for m in range(masks)])
        kept = patterns[ids]
        bit = torch.tensor([1, 2, 4, 8, 16, 32, 64, 128])
        tensors[f"{name}.mask"] = (patterns.reshape(masks, rows, -1, 8) * bit).sum(-1).to(torch.uint8)
        tensors[f"{name}.mask_id"] = ids.to(torch.int32)
    out, packed, scales, row_scales = [], [], [], []
    for e in range(experts):
        codes, scale, decoded = groupwise(delta[e] * kept[e], bits, group)
        unsigned = codes + 2 ** (bits - 1)
        packed.append(pack_bits(unsigned[kept[e]].reshape(rows, -1), bits))
        scales.append(scale)
        total = anchor + decoded
        row_scales.append(norms[e] / total.norm(dim=1))
        out.append(retract(total, manifold, norms[e]))
    tensors[f"{name}.delta_packed"] = torch.stack(packed)
    tensors[f"{name}.delta_scale"] = torch.stack(scales)
    if manifold == "sphere":
        tensors[f"{name}.row_scale"] = torch.stack(row_scales).float()
    if config.get("norms"):
        tensors[f"{name}.target_norm"] = norms.float()
    return torch.stack(out), {"experts": experts, "rows": rows, "cols": cols, "anchor_dtype": config["anchor_dtype"],
                              "num_bits": bits, "group_size": group, "manifold": manifold,
                              "target_norms": bool(config.get("norms")), "masks": masks,
                              "anchor_sha256": digest.hexdigest()}


def act(name, x):
    return {"linear": lambda v: v, "gelu": torch.nn.functional.gelu, "silu": torch.nn.functional.silu,
            "gelu_tanh": lambda v: torch.nn.functional.gelu(v, approximate="tanh")}[name](x)


def errors_of(case, x, encoder, decoder):
    """errors [T, E] and reconstructions [T, E, d]."""
    h = act(case["activation"], torch.einsum("erd,td->ter", encoder, x))
    rec = torch.einsum("edr,ter->ted", decoder, h)
    target = x[:, None].expand_as(rec)
    if case["measure"] == "cosine":
        return 1 - torch.nn.functional.cosine_similarity(rec, target, dim=-1), rec
    if case["measure"] == "huber":
        err = torch.nn.functional.huber_loss(rec, target, reduction="none", delta=case["huber_delta"]).sum(-1)
    else:
        err = (target - rec).square().sum(-1)
    unit = {"none": torch.ones(len(x)), "width": torch.full((len(x),), float(x.shape[1])),
            "input": x.square().sum(-1)}[case["normalization"]]
    return err / unit[:, None], rec


def margin(errors, slots):
    """Least distance between neighbours in rank, over the error, as far as the choice depends on it."""
    ordered = errors.sort(dim=-1).values[:, :slots + 1]
    return ((ordered[:, 1:] - ordered[:, :-1]) / ordered[:, 1:]).amin(-1)


def layer(case, x, w):
    slots = 1 if case["combine"] == "best" else case["num_experts_per_tok"]
    errors, rec = errors_of(case, x, w["encoder"], w["decoder"])
    chosen, ids = errors.sort(dim=-1, stable=True)
    chosen, ids = chosen[:, :slots], ids[:, :slots]
    weights = torch.softmax(-chosen / case["temperature"], -1)
    if case["combine"] == "uniform":
        weights = torch.full_like(weights, 1 / slots)
    if case["output"] == "ffn":
        up = torch.einsum("efd,td->tef", w["up"], x)
        if case["gated"]:
            h = act(case["hidden_act"], torch.einsum("efd,td->tef", w["gate"], x)) * up
        else:
            h = act(case["hidden_act"], up)
        out = torch.einsum("edf,tef->ted", w["down"], h)
    else:
        out = rec
    y = (weights[..., None] * out.gather(1, ids[..., None].expand(-1, -1, x.shape[1]))).sum(1)
    return errors, ids, weights, y + x if case["combine"] == "residual" else y


def related(generator, experts, rows, cols):
    """Matrices with a common part: unlike enough to route by, alike enough for an anchor."""
    common = torch.randn(rows, cols, generator=generator)
    own = torch.randn(experts, rows, cols, generator=generator)
    return (0.5 * common + own) / cols ** 0.5


def draw_tokens(case, generator, w):
    """Tokens near what one of the experts can express, with a clear choice."""
    slots = 1 if case["combine"] == "best" else case["num_experts_per_tok"]
    kept = []
    while len(kept) < case["tokens"]:
        e = int(torch.randint(case["num_experts"], (1,), generator=generator))
        x = torch.randn(case["bottleneck"], generator=generator) @ w["encoder"][e]
        x = (x + 0.3 * torch.randn(case["hidden_size"], generator=generator) * x.std()).float().double()
        if margin(errors_of(case, x[None], w["encoder"], w["decoder"])[0], slots)[0] > 1e-3:
            kept.append(x)
    return torch.stack(kept)


def sort_metadata(path):
    """safetensors writes the metadata in any order; a frozen file needs one."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8:8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size:])


def write_case(folder, name, case, seed):
    generator = torch.Generator().manual_seed(seed)
    experts, d, r, f = (case[k] for k in ("num_experts", "hidden_size", "bottleneck", "intermediate_size"))
    shapes = {"encoder": (r, d)}
    if not case["tied"]:
        shapes["decoder"] = (d, r)
    if case["output"] == "ffn":
        shapes.update({"up": (f, d), "down": (d, f)})
        if case["gated"]:
            shapes["gate"] = (f, d)
    tensors, weights, manifests = {}, {}, {}
    for matrix, shape in shapes.items():
        plain = related(generator, experts, *shape)
        if matrix in case["stacks"]:
            weights[matrix], manifests[matrix] = make_stack(matrix, plain, case["stacks"][matrix], tensors)
        else:
            tensors[matrix] = plain.float()
            weights[matrix] = tensors[matrix].double()
    if case["tied"]:
        weights["decoder"] = weights["encoder"].transpose(1, 2)
    x = draw_tokens(case, generator, weights)
    errors, ids, slot_weights, y = layer(case, x, weights)
    tensors.update({"x": x.float(), "errors": errors.float(), "ids": ids.to(torch.int32),
                    "weights": slot_weights.float(), "y": y.float(), "residual_norms": (x - y).norm(dim=1).float()})
    spec = {k: v for k, v in case.items() if k != "stacks"}
    path = folder / f"{name}.safetensors"
    save_file({k: v.contiguous() for k, v in tensors.items()}, path,
              metadata={"format": "kedge.anchor-delta/1", "stacks": json.dumps(manifests), "case": json.dumps(spec)})
    sort_metadata(path)
    counts = torch.bincount(ids.flatten(), minlength=experts).tolist()
    print(f"{name}: {path.stat().st_size} bytes, counts {counts}, rms of y {y.square().mean().sqrt():.3f}")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main():
    folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else
                          pathlib.Path(__file__).parent.parent / "tests/goldens/mcqsmoe")
    folder.mkdir(parents=True, exist_ok=True)
    hashes = {name: write_case(folder, name, {**BASE, **case}, 100 + i)
              for i, (name, case) in enumerate(CASES.items())}
    (folder / "hashes.json").write_text(json.dumps(hashes, indent=1) + "\n")


if __name__ == "__main__":
    main()
