#!/usr/bin/env python3
"""Small classifiers and what PyTorch computes with them: tests/goldens/mnist.

Each network is written in fp32 and, quantized by torch's own quantizers, as compressed-tensors' int-quantized with
dynamic and static inputs; expected.json has the logits of the first test images in double precision. Static scales are
those of torch.ao's observers on the first training images.

usage: make_mnist_goldens.py [FIXTURE] [OUT]     needs torch, safetensors, compressed-tensors
"""
import gzip
import json
import pathlib
import struct
import sys

import numpy as np
import torch
from compressed_tensors.quantization import QuantizationConfig
from safetensors.torch import save_file
from torch.ao.quantization import observer as observers

MEAN, STD = 0.1307, 0.3081
IMAGES, CALIBRATION, BATCH = 12, 320, 64


def images(path, count):
    data = gzip.open(path).read()
    shape = struct.unpack(">III", data[4:16])
    grey = np.frombuffer(data, np.uint8, offset=16).reshape(shape)[:count]
    return torch.tensor((grey.reshape(count, -1) / 255 - MEAN) / STD, dtype=torch.float32)


class Network:
    """Functions of named weights; `quantize` says what happens to a linear's weight and input."""

    def __init__(self, config, weights, quantize=None):
        self.config, self.weights, self.quantize = config, weights, quantize
        self.inputs = {}

    def linear(self, name, x):
        weight, bias = self.weights[name + ".weight"].double(), self.weights[name + ".bias"].double()
        self.inputs.setdefault(name, []).append(x.float())
        if self.quantize is not None and name != "moe.gate":
            weight, x = self.quantize(name, self.weights[name + ".weight"], x.float())
            weight, x = weight.double(), x.double()
        return x @ weight.T + bias

    def __call__(self, x):
        h = torch.relu(self.linear("fc1", x.double()))
        if self.config["network"] == "ffn":
            return self.linear("fc3", torch.relu(self.linear("fc2", h)))
        z = self.linear("moe.gate", h)
        gates, ids = torch.softmax(z, -1).topk(self.config["num_experts_per_tok"], -1)
        out = torch.zeros_like(h)
        for e in range(self.config["num_experts"]):
            token, slot = (ids == e).nonzero(as_tuple=True)
            if len(token) == 0:
                continue
            inner = torch.relu(self.linear(f"moe.experts.{e}.fc1", h[token]))
            out.index_add_(0, token, self.linear(f"moe.experts.{e}.fc2", inner) * gates[token, slot, None])
        return self.linear("fc2", h + out)


def weight_codes(weight):
    """Symmetric, one scale per row: the scales that a file in fp16 can hold, and torch's codes for them."""
    scales = (weight.abs().amax(1) / 127.5).half().float()
    q = torch.quantize_per_channel(weight, scales.double(), torch.zeros(len(scales), dtype=torch.long), 0, torch.qint8)
    return q.int_repr(), scales


def rows_to_int8(x):
    """Each row by torch's fake quantization, with the scale max / 127."""
    return torch.stack([torch.fake_quantize_per_tensor_affine(r, (r.abs().max() / 127).item(), 0, -127, 127) for r in x])


def static_scales(network, batches, make_observer):
    found = {}
    network.inputs = {}
    for batch in batches:
        network(batch)
    for name, inputs in network.inputs.items():
        observer = make_observer()
        for x in inputs:
            observer(x)
        if name != "moe.gate":
            found[name] = float(max(observer.max_val.abs(), observer.min_val.abs())) / 127
    return found


def write(folder, config, weights, activations, scales, quantization):
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name, value in weights.items():
        module = name.removesuffix(".weight")
        if activations is None or module == name or module == "moe.gate":
            tensors[name] = value
            continue
        codes, found = weight_codes(value)
        tensors[name] = codes
        tensors[module + ".weight_scale"] = found.half().view(-1, 1)
        if activations == "static":
            tensors[module + ".input_scale"] = torch.tensor([scales[module]])
    if activations is not None:
        config = config | {"quantization_config": quantization}
        QuantizationConfig.model_validate({k: v for k, v in quantization.items() if k != "quant_method"})
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def quantization(activations):
    args = {"num_bits": 8, "type": "int", "symmetric": True, "group_size": None}
    inputs = {"strategy": "token", "dynamic": True} if activations == "dynamic" else {"strategy": "tensor", "dynamic": False}
    group = {"targets": ["Linear"], "weights": args | {"strategy": "channel", "dynamic": False},
             "input_activations": args | inputs, "output_activations": None, "format": "int-quantized"}
    return {"quant_method": "compressed-tensors", "format": "int-quantized", "quantization_status": "compressed",
            "config_groups": {"group_0": group}, "ignore": ["moe.gate"]}


def main():
    root = pathlib.Path(__file__).resolve().parent.parent
    fixture = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else root / "tests/fixtures/mnist"
    out = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else root / "tests/goldens/mnist"
    x = images(fixture / "t10k-images-idx3-ubyte.gz", IMAGES)
    batches = images(fixture / "train-images-idx3-ubyte.gz", CALIBRATION).split(BATCH)
    base = {"model_type": "kedge_mnist", "image_size": 28, "num_classes": 10, "image_mean": MEAN, "image_std": STD,
            "hidden_act": "relu", "dtype": "float32"}
    moe = {"network": "moe", "hidden_sizes": [24], "moe_intermediate_size": 20, "num_experts": 4, "norm_topk_prob": False}
    configs = {"ffn": base | {"network": "ffn", "hidden_sizes": [24, 18]},
               "moe": base | moe | {"num_experts_per_tok": 1}, "moe2": base | moe | {"num_experts_per_tok": 2}}
    expected = {"images": IMAGES, "calibration_images": CALIBRATION, "calibration_batch": BATCH, "networks": {}}
    torch.manual_seed(2)
    for name, config in configs.items():
        sizes = {"fc1": (24, 784)}
        if config["network"] == "ffn":
            sizes |= {"fc2": (18, 24), "fc3": (10, 18)}
        else:
            sizes |= {"moe.gate": (4, 24), "fc2": (10, 24)}
            sizes |= {f"moe.experts.{e}.fc1": (20, 24) for e in range(4)}
            sizes |= {f"moe.experts.{e}.fc2": (24, 20) for e in range(4)}
        weights = {}
        for module, (rows, cols) in sizes.items():
            weights[module + ".weight"] = torch.randn(rows, cols) * (1.5 / cols**0.5)
            weights[module + ".bias"] = torch.randn(rows) * 0.1
        plain = Network(config, weights)
        scales = {kind: static_scales(plain, batches, make) for kind, make in (
            ("min-max", observers.MinMaxObserver),
            ("moving-average", lambda: observers.MovingAverageMinMaxObserver(averaging_constant=0.01)))}

        def quantize(inputs):
            def run(module, weight, value):
                codes, found = weight_codes(weight)
                return codes * found[:, None], inputs(module, value)
            return run

        quantizers = {
            "dynamic": quantize(lambda module, value: rows_to_int8(value)),
            "static": quantize(lambda module, value: torch.fake_quantize_per_tensor_affine(
                value, scales["min-max"][module], 0, -127, 127))}
        result = {"fp32": plain(x).tolist(), "scales": scales}
        write(out / name, config, weights, None, None, None)
        for activations, quantizer in quantizers.items():
            write(out / f"{name}-{activations}", config, weights, activations, scales["min-max"], quantization(activations))
            result[activations] = Network(config, weights, quantizer)(x).tolist()
        expected["networks"][name] = result
    (out / "expected.json").write_text(json.dumps(expected, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
