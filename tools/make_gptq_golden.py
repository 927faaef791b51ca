#!/usr/bin/env python3
"""Writes tests/goldens/gptq.json: GPTQ and GPTAQ in float64, straight from the papers' per-column equations.

Needs numpy (only here). No Cholesky factor and no blocks: after each column the inverse of what is left of the Hessian
is computed anew (arXiv 2210.17323, equation 2; arXiv 2504.02692, the asymmetric term with the inverse of the columns
after q). src/kernels/gptq/gptq_test.cc makes the same inputs from the same generator.

usage: tools/make_gptq_golden.py > tests/goldens/gptq.json
"""
import json

import numpy as np

ROWS, COLS, TOKENS = 20, 160, 240
CASES = [
    {"name": "w4_sym_g32", "bits": 4, "symmetric": True, "group": 32, "order": False, "alpha": 0.0},
    {"name": "w3_asym_g32", "bits": 3, "symmetric": False, "group": 32, "order": False, "alpha": 0.0},
    {"name": "w2_sym_channel", "bits": 2, "symmetric": True, "group": 160, "order": False, "alpha": 0.0},
    {"name": "w4_asym_g40", "bits": 4, "symmetric": False, "group": 40, "order": False, "alpha": 0.0},
    {"name": "w3_sym_g32_act_order", "bits": 3, "symmetric": True, "group": 32, "order": True, "alpha": 0.0},
    {"name": "w3_asym_g32_gptaq", "bits": 3, "symmetric": False, "group": 32, "order": False, "alpha": 0.25},
    {"name": "w4_sym_g32_gptaq_act_order", "bits": 4, "symmetric": True, "group": 32, "order": True, "alpha": 1.0},
]


class Generator:
    """Uniform in [-1/2, 1/2), 24 bits (Knuth's MMIX constants)."""

    def __init__(self, seed):
        self.state = seed

    def __call__(self):
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (self.state >> 40) / 2**24 - 0.5


def inputs():
    rand = Generator(7)
    weights = [[rand() * (4 if rand() > 0.45 else 1) for _ in range(COLS)] for _ in range(ROWS)]
    mix = [[rand() for _ in range(COLS)] for _ in range(4)]
    size = [4 if i % 13 == 5 else 1 for i in range(COLS)]
    x, dx = [], []
    for _ in range(TOKENS):
        common = [rand() for _ in range(4)]
        row = []
        for i in range(COLS):
            value = rand()
            for k in range(4):
                value += 3 * common[k] * mix[k][i]
            row.append(value * size[i])
        x.append(row)
        dx.append([0.3 * rand() * size[i] for i in range(COLS)])
    x, dx = np.array(x), np.array(dx)
    h = x.T @ x
    h += 0.01 * np.mean(np.diag(h)) * np.eye(COLS)
    as_float = lambda m: np.asarray(m).astype(np.float32).astype(np.float64)
    return as_float(weights), as_float(h), as_float(dx.T @ x)


def bf16(value):
    bits = np.float32(value).view(np.uint32)
    return float(((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) & np.uint32(0xFFFF0000)).view(np.float32))


def scale_of(w, case):
    lo, hi = min(w.min(), 0.0), max(w.max(), 0.0)
    low, high, steps = -2 ** (case["bits"] - 1), 2 ** (case["bits"] - 1) - 1, 2 ** case["bits"] - 1
    if case["symmetric"]:
        return bf16(max(-lo, hi) / (steps / 2)), 0.0
    exact = (hi - lo) / steps
    return bf16(exact), float(np.clip(np.rint(low - lo / exact), low, high))


def quantize_row(w, h, cross, order, case):
    low, high, group = -2 ** (case["bits"] - 1), 2 ** (case["bits"] - 1) - 1, case["group"]
    original, w = w.copy(), w.copy()
    codes, scales, zeros = np.zeros(COLS, int), {}, {}
    for position, q in enumerate(order):
        g = q // group
        if g not in scales:
            source = original if case["order"] else w
            scales[g], zeros[g] = scale_of(source[g * group:(g + 1) * group], case)
        code = np.clip(np.rint(w[q] / scales[g] + zeros[g]), low, high)
        decoded = (code - zeros[g]) * scales[g]
        codes[q] = int(code) - low
        left = order[position:]
        rest = order[position + 1:]
        column = INVERSES[case["order"], position][:, 0]
        change = -(w[q] - decoded) / column[0] * column[1:]
        if case["alpha"] and len(rest):
            change = change + case["alpha"] * w[q] * (cross[q, rest] @ INVERSES[case["order"], position + 1])
        w[rest] += change
        w[q] = decoded
        assert len(left) == len(column)
    groups = COLS // group
    return codes, [scales[g] for g in range(groups)], [int(zeros[g]) - low for g in range(groups)], w


INVERSES = {}


def main():
    weights, h, cross = inputs()
    orders = {False: np.arange(COLS), True: np.argsort(-np.diag(h), kind="stable")}
    for key, order in orders.items():
        for position in range(COLS):
            left = order[position:]
            INVERSES[key, position] = np.linalg.inv(h[np.ix_(left, left)])
    out = []
    for case in CASES:
        codes, scales, zeros, error = [], [], [], 0.0
        for row in weights:
            c, s, z, decoded = quantize_row(row, h, cross, orders[case["order"]], case)
            codes.append("".join(f"{v:x}" for v in c))
            scales.append(s)
            zeros.append(z)
            error += (row - decoded) @ h @ (row - decoded)
        out.append({**case, "error": float(f"{error:.8g}"), "codes": codes, "scales": scales,
                    **({} if case["symmetric"] else {"zeros": zeros})})
    print(json.dumps({"rows": ROWS, "cols": COLS, "tokens": TOKENS, "cases": out}, indent=None, separators=(",", ":"))
          .replace('{"name"', '\n{"name"'))


if __name__ == "__main__":
    main()
