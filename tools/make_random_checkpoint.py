#!/usr/bin/env python3
"""A checkpoint with the shapes of a real model and random weights, to measure memory and time where weights do not matter.

  tools/make_random_checkpoint.py CONFIG_JSON TOKENIZER_DIR OUT_DIR [--layers N] [--seed N]

CONFIG_JSON: of an olmoe or qwen3_moe model. Weights are bf16, normal with `initializer_range`; norms are one. One file
per layer, one layer in memory. The tokenizer of TOKENIZER_DIR is copied: its ids must be below `vocab_size`.
"""
import argparse
import json
import pathlib
import shutil

import numpy as np

BF16 = "BF16"


def as_bf16(values):
    """fp32 -> the upper halves of its words, rounded to nearest even."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def attention_shapes(config, prefix):
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    head_dim = config.get("head_dim") or hidden // heads
    q, kv = heads * head_dim, config["num_key_value_heads"] * head_dim
    yield f"{prefix}.self_attn.q_proj.weight", (q, hidden)
    yield f"{prefix}.self_attn.k_proj.weight", (kv, hidden)
    yield f"{prefix}.self_attn.v_proj.weight", (kv, hidden)
    yield f"{prefix}.self_attn.o_proj.weight", (hidden, q)
    whole = config["model_type"] == "olmoe"  # its norms of q and k span all heads
    yield f"{prefix}.self_attn.q_norm.weight", (q if whole else head_dim,)
    yield f"{prefix}.self_attn.k_norm.weight", (kv if whole else head_dim,)


def layer_shapes(config, layer):
    prefix, hidden = f"model.layers.{layer}", config["hidden_size"]
    intermediate = config.get("moe_intermediate_size", config["intermediate_size"])
    yield f"{prefix}.input_layernorm.weight", (hidden,)
    yield f"{prefix}.post_attention_layernorm.weight", (hidden,)
    yield from attention_shapes(config, prefix)
    yield f"{prefix}.mlp.gate.weight", (config["num_experts"], hidden)
    for expert in range(config["num_experts"]):
        for name, shape in (("gate_proj", (intermediate, hidden)), ("up_proj", (intermediate, hidden)),
                            ("down_proj", (hidden, intermediate))):
            yield f"{prefix}.mlp.experts.{expert}.{name}.weight", shape


def write_shard(path, shapes, std, rng):
    """safetensors with bf16 by hand: numpy has no such type."""
    header, offset, shapes = {"__metadata__": {"format": "pt"}}, 0, list(shapes)
    for name, shape in shapes:
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": BF16, "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as out:
        out.write(len(text).to_bytes(8, "little"))
        out.write(text)
        for name, shape in shapes:
            values = (np.ones(shape, np.float32) if len(shape) == 1
                      else rng.standard_normal(shape, dtype=np.float32) * np.float32(std))
            out.write(as_bf16(values).tobytes())
    return {name: path.name for name, _ in shapes}, offset


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=pathlib.Path)
    parser.add_argument("tokenizer", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--layers", type=int, help="instead of num_hidden_layers")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    config = json.loads(arguments.config.read_text())
    if config["model_type"] not in ("olmoe", "qwen3_moe"):
        parser.error(f"model_type is {config['model_type']}, expected olmoe or qwen3_moe")
    if arguments.layers:
        config["num_hidden_layers"] = arguments.layers
    arguments.out.mkdir(parents=True)
    (arguments.out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(arguments.tokenizer / name, arguments.out / name)
    rng, std = np.random.default_rng(arguments.seed), config.get("initializer_range", 0.02)
    layers = config["num_hidden_layers"]
    vocabulary = (config["vocab_size"], config["hidden_size"])
    outer = [("model.embed_tokens.weight", vocabulary), ("model.norm.weight", (config["hidden_size"],))]
    if not config.get("tie_word_embeddings"):
        outer.append(("lm_head.weight", vocabulary))
    weight_map, total = {}, 0
    for index in range(layers + 1):
        path = arguments.out / f"model-{index + 1:05}-of-{layers + 1:05}.safetensors"
        names, size = write_shard(path, outer if index == layers else layer_shapes(config, index), std, rng)
        weight_map.update(names)
        total += size
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (arguments.out / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
    print(f"{arguments.out}: {total / 1e9:.2f} GB in {layers + 1} files")


if __name__ == "__main__":
    main()
