#!/usr/bin/env python3
"""Writes tests/goldens/demo-4m.expected.json: what transformers says of the bundled model, in fp32 with eager attention.

Needs (not at run time of kedge, only here): torch, transformers.

  tools/make_model_golden.py [MODEL_DIR] [--text models/demo-text.txt] [--out tests/goldens/demo-4m.expected.json]

Perplexity, greedy continuations, token ids of awkward strings, and for round-to-nearest at four settings what it does to
routing and predictions. Round-to-nearest here is this file's own: symmetric, s = absmax / ((2^b - 1) / 2) in bfloat16,
q = clamp(round(w / s), -2^(b-1), 2^(b-1) - 1), groups along the inputs, every linear weight inside the layers but routers'.
"""
import argparse
import collections
import json
import pathlib

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

ROW, RTN_ROWS, NEW_TOKENS = 256, 32, 32
PROMPTS = ["It was a dark and", "The captain of the ship", "She said to him that", "In the beginning of the year 1812,",
           "“What do you mean?” he asked; and"]
STRINGS = ["Hello, world!", "  two  spaces\n\nand a newline", "naïve café — “quotes” … 東京 🙂",
           "don't you'll we've 1234567 3.14159", "\tTAB and trailing   ",
           "<|endoftext|>special inside<|endoftext|>"]
SETTINGS = {"w4a16_g128": (4, 128), "w4a16_g32": (4, 32), "w3a16_g64": (3, 64), "w2a16_g32": (2, 32)}


def load(folder):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    return model.eval().to(torch.float32)


def rounded(weight, bits, group):
    """weight: [..., out, in]."""
    shape = weight.shape
    size = group if shape[-1] % group == 0 else shape[-1]
    rows = weight.reshape(-1, size)
    scale = (rows.abs().amax(-1, keepdim=True) / ((2**bits - 1) / 2)).bfloat16().float()
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    levels = torch.clamp(torch.round(rows / scale), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return (levels * scale).reshape(shape)


def round_to_nearest(model, bits, group):
    for name, parameter in model.named_parameters():
        inside = ".layers." in name and parameter.dim() >= 2
        if inside and not name.endswith((".gate.weight", ".router.weight")):
            parameter.data = rounded(parameter.data, bits, group)


class Witness:
    """Rows of token ids through a model: log-probabilities, losses and chosen experts."""

    def __init__(self, model, rows):
        self.nll, self.log_probabilities, self.choices = [], [], collections.defaultdict(list)
        for i, row in enumerate(rows):
            with torch.no_grad():
                out = model(row[None], output_router_logits=True)
            logp = torch.log_softmax(out.logits[0].double(), -1)
            self.nll.append(-logp[:-1].gather(1, row[1:, None])[:, 0])
            if i >= RTN_ROWS:
                continue
            self.log_probabilities.append(logp)
            for layer, logits in enumerate(out.router_logits):
                self.choices[layer].append(torch.topk(logits, model.config.num_experts_per_tok)[1].sort(-1)[0])

    def mean_nll(self):
        return torch.cat(self.nll).mean().item()


def jaccard(a, b):
    """By token, of sorted expert ids [T, k]."""
    common = (a[:, :, None] == b[:, None, :]).sum((1, 2)).double()
    return common / (2 * a.shape[1] - common)


def compare(original, quantized):
    by_layer, exact = {}, {}
    for layer in original.choices:
        shares = jaccard(torch.cat(original.choices[layer]), torch.cat(quantized.choices[layer]))
        by_layer[str(layer)], exact[str(layer)] = shares.mean().item(), (shares == 1).double().mean().item()
    p, q = torch.cat(original.log_probabilities), torch.cat(quantized.log_probabilities)
    kld = (p.exp() * (p - q)).sum(-1)
    return {"scale": "absmax/((2^b-1)/2), stored bfloat16", "jaccard_by_layer": by_layer,
            "jaccard_mean": sum(by_layer.values()) / len(by_layer), "exact_set_by_layer": exact,
            "kld_mean": kld.mean().item(), "kld_median": kld.quantile(0.5).item(),
            "same_top": (p.argmax(-1) == q.argmax(-1)).double().mean().item(), "mean_nll": quantized.mean_nll()}


def greedy(model, tokenizer, prompt):
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    tokens, gaps = list(ids), []
    with torch.no_grad():
        for _ in range(NEW_TOKENS):
            best = torch.topk(model(torch.tensor([tokens])).logits[0, -1], 2)
            gaps.append((best.values[0] - best.values[1]).item())
            tokens.append(best.indices[0].item())
    new = tokens[len(ids):]
    return {"prompt": prompt, "prompt_ids": ids, "greedy_ids": new, "text": tokenizer.decode(new),
            "smallest_top2_gap": min(gaps)}


def main():
    root = pathlib.Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("model", nargs="?", type=pathlib.Path, default=root / "models/demo-4m")
    parser.add_argument("--text", type=pathlib.Path, default=root / "models/demo-text.txt")
    parser.add_argument("--out", type=pathlib.Path, default=root / "tests/goldens/demo-4m.expected.json")
    arguments = parser.parse_args()

    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    ids = torch.tensor(tokenizer(arguments.text.read_text(encoding="utf-8"), add_special_tokens=False)["input_ids"])
    rows = ids[: len(ids) // ROW * ROW].reshape(-1, ROW)
    model = load(arguments.model)
    original = Witness(model, rows)
    expected = {
        "made_with": {"torch": torch.__version__, "transformers": transformers.__version__, "dtype": "float32",
                      "attention": "eager"},
        "perplexity": {"text": f"{arguments.text.name}, tokenized as one string without special tokens, cut into rows of "
                               f"{ROW} tokens (remainder dropped), each row on its own, positions 1..{ROW - 1} scored",
                       "rows": len(rows), "tokens_scored": len(rows) * (ROW - 1), "mean_nll": original.mean_nll(),
                       "ppl": float(torch.tensor(original.mean_nll(), dtype=torch.float64).exp()),
                       "tolerance_mean_nll": 1e-4},
        "greedy": [greedy(model, tokenizer, prompt) for prompt in PROMPTS],
        "tokenizer": [{"text": text, "ids": tokenizer(text, add_special_tokens=False)["input_ids"]} for text in STRINGS],
        "rtn": {"rows": f"first {RTN_ROWS} rows of the perplexity text, all {ROW} positions, free-running",
                "tolerance": {"jaccard": 0.003, "kld_relative": 0.02, "mean_nll": 0.001}, "results": {}}}
    for name, (bits, group) in SETTINGS.items():
        quantized = load(arguments.model)
        round_to_nearest(quantized, bits, group)
        expected["rtn"]["results"][name] = compare(original, Witness(quantized, rows))
    arguments.out.write_text(json.dumps(expected, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
