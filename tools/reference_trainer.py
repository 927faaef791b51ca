"""Training as transformers and torch do it: the outside witness of src/train.

The model is transformers', the optimizers are torch.optim's; the router losses are written anew from their papers.
Used by make_training_goldens.py and compare_training.py. Needs torch and transformers.
"""
import math
import unittest.mock

import torch
import torch.nn.functional as F
import transformers

DEFAULTS = dict(steps=50, optimizer="adamw", lr=1e-3, min_lr_ratio=0.1, warmup_ratio=0.1, schedule="cosine",
                weight_decay=0.1, beta1=0.9, beta2=0.95, eps=1e-8, momentum=0.95, clip=1.0, balance_loss=0.01,
                z_loss=0.001, bias_update_speed=0.001)


def load(directory):
    model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    # Else the padding token, which is the end of text in many models, would get no gradient.
    model.get_input_embeddings().padding_idx = None
    return model.train()


def learning_rate(s, step):
    warmup = round(s["warmup_ratio"] * s["steps"])
    if step <= warmup:
        return s["lr"] * step / warmup
    part = (step - warmup) / (s["steps"] - warmup)
    fall = {"cosine": (1 + math.cos(math.pi * part)) / 2, "linear": 1 - part, "constant": 1.0}[s["schedule"]]
    return s["lr"] * (s["min_lr_ratio"] + (1 - s["min_lr_ratio"]) * fall)


class Gates:
    """What the routers of one forward pass computed: logits with their graph, and the choice."""

    def __init__(self, model):
        self.gates = [m.mlp.gate for m in model.model.layers if hasattr(m.mlp, "gate")]
        self.seen = []
        for gate in self.gates:
            gate.register_forward_hook(lambda _, __, out: self.seen.append((out[0].float(), out[2])))

    def losses(self):
        """Switch's balance loss and ST-MoE's z-loss, means over the layers."""
        balance, z = 0.0, 0.0
        for logits, chosen in self.seen:
            tokens, experts = logits.shape
            share = F.one_hot(chosen, experts).sum((0, 1)).float() / chosen.numel()
            balance = balance + experts * torch.dot(share, logits.softmax(-1).mean(0))
            z = z + torch.logsumexp(logits, -1).pow(2).mean()
        return balance / len(self.seen), z / len(self.seen)

    @torch.no_grad()
    def move_biases(self, speed):
        for gate, (logits, chosen) in zip(self.gates, self.seen):
            load = torch.bincount(chosen.flatten(), minlength=logits.shape[-1]).float()
            gate.e_score_correction_bias += speed * torch.sign(load.mean() - load)


class Matrices:
    """The layers' matrices as 2-D parameters of their own that share memory with the model's fused ones: what
    torch.optim.Muon takes."""

    def __init__(self, model):
        self.parts, self.whole, self.taken = [], [], set()
        for name, parameter in model.model.layers.named_parameters():
            if parameter.ndim < 2 or name.endswith("mlp.gate.weight"):
                continue
            self.taken.add(parameter)
            pieces = [parameter] if parameter.ndim == 2 else [
                half for expert in parameter for half in (expert.chunk(2) if "gate_up" in name else [expert])]
            for i, piece in enumerate(pieces):
                self.parts.append(torch.nn.Parameter(piece.data))
                self.whole.append((parameter, i, len(pieces), "gate_up" in name))

    def take_gradients(self):
        for part, (parameter, i, count, fused) in zip(self.parts, self.whole):
            if count == 1:
                part.grad = parameter.grad
            elif fused:
                part.grad = parameter.grad[i // 2].chunk(2)[i % 2]
            else:
                part.grad = parameter.grad[i]


class Trainer:
    def __init__(self, model, settings):
        self.model, self.s = model, settings
        self.gates = Gates(model)
        self.sigmoid = hasattr(self.gates.gates[0], "e_score_correction_bias")
        s = settings
        self.matrices = Matrices(model) if s["optimizer"] == "muon" else None
        taken = self.matrices.taken if self.matrices else set()
        rest = [p for p in model.parameters() if p not in taken and p.requires_grad]
        self.optimizers = [torch.optim.AdamW(
            [{"params": [p for p in rest if p.ndim >= 2], "weight_decay": s["weight_decay"]},
             {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0}],
            lr=s["lr"], betas=(s["beta1"], s["beta2"]), eps=s["eps"], fused=True)]
        if self.matrices:
            self.optimizers.append(torch.optim.Muon(self.matrices.parts, lr=s["lr"], weight_decay=s["weight_decay"],
                                                    momentum=s["momentum"], adjust_lr_fn="match_rms_adamw"))

    def step(self, ids, step):
        """ids: [B, T]. -> the cross-entropy, nats per token."""
        self.gates.seen.clear()
        logits = self.model(input_ids=ids, use_cache=False).logits.float()
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        total = loss
        if not self.sigmoid:
            balance, z = self.gates.losses()
            total = loss + self.s["balance_loss"] * balance + self.s["z_loss"] * z
        for parameter in self.model.parameters():
            parameter.grad = None
        total.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.s["clip"])
        if self.matrices:
            self.matrices.take_gradients()
        # torch's Muon iterates in bfloat16, kedge's in fp32.
        with unittest.mock.patch.object(torch.Tensor, "bfloat16", lambda x: x.clone()):
            for optimizer in self.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(self.s, step)
                optimizer.step()
        if self.sigmoid:
            self.gates.move_biases(self.s["bias_update_speed"])
        return loss.item()
