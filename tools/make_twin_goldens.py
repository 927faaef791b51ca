#!/usr/bin/env python3
"""Gradients as transformers computes them: the outside witness of src/twin.

For each golden model of tests/goldens/hf (fp32, eager attention): the mean next-token cross-entropy of the golden's
input_ids and its gradients, under canonical names (src/model/family.h). Into tests/goldens/twin:

  <family>.gradients.safetensors  rows of some gradients: norms, a projection, the router, one expert, embeddings
  <family>.gradients.json         the loss and the Frobenius norm of every parameter's gradient

Needs torch, transformers and safetensors.

usage: make_twin_goldens.py [FAMILY ...]
"""
import json
import pathlib
import sys

import torch
import transformers
from safetensors.torch import load_file, save_file

ROOT = pathlib.Path(__file__).resolve().parent.parent
FAMILIES = ["olmoe", "qwen3_moe", "mixtral", "deepseek_v3"]
ROWS = 4  # of a matrix


def canonical_gradients(model):
    """Name -> gradient; transformers' fused experts become one matrix each."""
    out = {}
    for name, parameter in model.named_parameters():
        gradient = parameter.grad
        if gradient is None:
            continue
        if name.endswith(".experts.gate_up_proj"):
            for e, pair in enumerate(gradient):
                gate, up = pair.chunk(2)
                out[f"{name.removesuffix('gate_up_proj')}{e}.gate_proj.weight"] = gate
                out[f"{name.removesuffix('gate_up_proj')}{e}.up_proj.weight"] = up
        elif name.endswith(".experts.down_proj"):
            for e, down in enumerate(gradient):
                out[f"{name.removesuffix('down_proj')}{e}.down_proj.weight"] = down
        else:
            out[name] = gradient
    return out


def chosen(gradients):
    """Some of everything, from the first and the last layer; of an expert that tokens reach."""
    last = max(int(name.split(".")[2]) for name in gradients if name.startswith("model.layers."))
    reached = next(e for e in range(99) if gradients[f"model.layers.{last}.mlp.experts.{e}.up_proj.weight"].any())
    wanted = ["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight", "model.layers.0.input_layernorm.weight"]
    for layer in (0, last):
        prefix = f"model.layers.{layer}."
        wanted += [name for name in gradients
                   if name.startswith(prefix + "self_attn.") or name in (
                       prefix + "mlp.gate.weight", prefix + "post_attention_layernorm.weight")]
    wanted += [f"model.layers.{last}.mlp.experts.{reached}.{p}_proj.weight" for p in ("gate", "up", "down")]
    wanted += [name for name in gradients if name.startswith(f"model.layers.{last}.mlp.shared_experts.")]
    return [name for name in dict.fromkeys(wanted) if name in gradients]


def make(family):
    source, target = ROOT / "tests/goldens/hf" / family, ROOT / "tests/goldens/twin"
    model = transformers.AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, attn_implementation="eager")
    model = model.to(torch.float32).train()
    ids = load_file(source / "golden.safetensors")["input_ids"].long()
    logits = model(ids).logits
    expected = load_file(source / "golden.safetensors")["logits"]
    assert (logits - expected).abs().max() < 1e-5, "not the model of the golden"
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    loss.backward()
    gradients = canonical_gradients(model)
    # Embedding rows of tokens that occur; the first rows of the others.
    tensors = {}
    for name in chosen(gradients):
        gradient = gradients[name]
        if name == "model.embed_tokens.weight":
            tensors[name + ".rows"] = ids.unique()[:ROWS].to(torch.int32)
            tensors[name] = gradient[ids.unique()[:ROWS]].contiguous()
        else:
            tensors[name] = gradient[:ROWS].contiguous() if gradient.dim() == 2 else gradient.contiguous()
    target.mkdir(parents=True, exist_ok=True)
    save_file(tensors, target / f"{family}.gradients.safetensors")
    facts = {"family": family, "transformers": transformers.__version__, "torch": torch.__version__,
             "dtype": "float32", "attention": "eager", "loss": loss.item(),
             "norms": {name: float(g.double().norm()) for name, g in sorted(gradients.items())}}
    (target / f"{family}.gradients.json").write_text(json.dumps(facts, indent=0) + "\n")
    print(f"{family}: loss {loss.item():.6f}, {len(facts['norms'])} gradients, {len(tensors)} stored")


def main():
    for family in sys.argv[1:] or FAMILIES:
        make(family)


if __name__ == "__main__":
    main()
