"""Models of ``torch.nn`` in float64, written without our adapters; torch's interpreter runs it.

Arguments: pairs of a case's path and the path to write. A result has, by name, ``output``, ``loss``
and the gradients of the first input set, and ``tokens`` where the model generates. Encoder and
decoder are those of ``nn.Transformer``; decoding computes every position again.
"""

import sys
from itertools import pairwise

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from levelfield.adapters.questions import read_case

EPSILON = 1e-6


class Oracle:
    """A module of torch.nn, and where each canonical array stands in its parameters."""

    def __init__(self, case):
        self.case, self.sizes = case, case.sizes
        self.places = {}  # canonical name -> (parameter, rows, whether the axes are exchanged)
        self.module = self.built()
        with torch.no_grad():
            for name, (parameter, rows, turned) in self.places.items():
                value = torch.from_numpy(case.parameters[name].astype("float64"))
                parameter[rows].copy_(value.T if turned else value)
        assert set(self.places) == set(case.parameters)

    def linear(self, name, layer):
        """Note the places of a dense layer."""
        self.places[f"{name}/kernel"] = layer.weight, slice(None), True
        self.places[f"{name}/bias"] = layer.bias, slice(None), False

    def norm(self, name, layer):
        """Note the places of a layer norm."""
        self.places[f"{name}/scale"] = layer.weight, slice(None), False
        self.places[f"{name}/bias"] = layer.bias, slice(None), False

    def attention(self, name, layer):
        """Note the places of an nn.MultiheadAttention, which packs three projections."""
        width = self.sizes["width"]
        for number, part in enumerate(("query", "key", "value")):
            rows = slice(number * width, (number + 1) * width)
            self.places[f"{name}/{part}/kernel"] = layer.in_proj_weight, rows, True
            self.places[f"{name}/{part}/bias"] = layer.in_proj_bias, rows, False
        self.linear(f"{name}/out", layer.out_proj)

    def answers(self):
        """Output, loss and gradients of the first set, and decoded tokens."""
        inputs = {
            name: torch.from_numpy(value.astype("int64" if value.dtype.kind == "i" else "float64"))
            for name, value in self.case.sets[0].items()
        }
        output, loss = self.forward(inputs)
        loss.backward()
        answers = {"output": output.detach().numpy(), "loss": loss.detach().numpy()}
        for name, (parameter, rows, turned) in self.places.items():
            gradient = parameter.grad[rows]
            answers["gradient/" + name] = (gradient.T if turned else gradient).numpy()
        if self.case.generation:
            with torch.no_grad():
                answers["tokens"] = self.decoded(inputs).numpy()
        return answers


class TwoTower(Oracle):
    """Two nn.Sequential, F.normalize and F.cross_entropy over the batch."""

    def built(self):
        """Build the towers."""
        towers = nn.ModuleDict()
        for tower in ("user", "item"):
            widths, layers = [self.sizes[f"{tower}_features"], *self.sizes["tower"]], []
            for number, pair in enumerate(pairwise(widths), start=1):
                layers += [nn.Linear(*pair), nn.ReLU()]
                self.linear(f"{tower}{number}", layers[-2])
            towers[tower] = nn.Sequential(*layers[:-1])
        return towers.double()

    def forward(self, inputs):
        """Scores of all pairs, and their loss."""
        user, item = (F.normalize(self.module[name](inputs[name])) for name in ("user", "item"))
        scores = torch.einsum("uw,iw->ui", user, item) / self.sizes["temperature"]
        return scores, F.cross_entropy(scores, torch.arange(len(scores)))


class OnTransformer(Oracle):
    """What encoder and transformer share."""

    def layer(self, kind):
        """A layer with the norm after each sum."""
        width, heads = self.sizes["width"], self.sizes["heads"]
        options = {"dropout": 0.0, "layer_norm_eps": EPSILON, "batch_first": True}
        return kind(width, heads, 4 * width, **options)

    def built(self):
        """Build table, encoder and the rest; nn.Transformer's own last norms are left out."""
        width, depth = self.sizes["width"], self.sizes["layers"]
        module = nn.Module()
        module.embed = nn.Embedding(self.sizes["vocabulary"], width)
        self.places["embed/embedding"] = module.embed.weight, slice(None), False
        module.encoder = nn.TransformerEncoder(
            self.layer(nn.TransformerEncoderLayer), depth, enable_nested_tensor=False
        )
        self.rest(module)
        module.double()
        for number, layer in enumerate(module.encoder.layers, start=1):
            name = f"encoder{number}"
            self.attention(f"{name}/attention", layer.self_attn)
            self.ends(name, layer, ["attention_norm", "norm"])
        return module

    def ends(self, name, layer, norms):
        """Note the places of the hidden layer, and of the norms in their order."""
        self.linear(f"{name}/hidden", layer.linear1)
        self.linear(f"{name}/out", layer.linear2)
        for number, norm in enumerate(norms, start=1):
            self.norm(f"{name}/{norm}", getattr(layer, f"norm{number}"))

    def embedded(self, tokens):
        """The rows of the table times the root of the width, and the paper's positions."""
        width = self.sizes["width"]
        positions = torch.zeros(tokens.shape[1], width, dtype=torch.float64)
        for place in range(tokens.shape[1]):
            for i in range(width // 2):
                angle = torch.tensor(place / 10_000 ** (2 * i / width), dtype=torch.float64)
                positions[place, 2 * i], positions[place, 2 * i + 1] = angle.sin(), angle.cos()
        return self.module.embed(tokens) * width**0.5 + positions


class Encoder(OnTransformer):
    """nn.TransformerEncoder with a head on the first position."""

    def rest(self, module):
        """Build the head."""
        module.head = nn.Linear(self.sizes["width"], self.sizes["classes"])
        self.linear("logits", module.head)

    def forward(self, inputs):
        """Logits and their loss."""
        tokens = inputs["tokens"]
        x = self.module.encoder(self.embedded(tokens), src_key_padding_mask=tokens == 0)
        logits = self.module.head(x[:, 0])
        return logits, F.cross_entropy(logits, inputs["label"])


class Transformer(OnTransformer):
    """nn.Transformer with one table."""

    def rest(self, module):
        """Build the decoder."""
        width, depth = self.sizes["width"], self.sizes["layers"]
        decoder = nn.TransformerDecoder(self.layer(nn.TransformerDecoderLayer), depth)
        module.both = nn.Transformer(
            width,
            self.sizes["heads"],
            custom_encoder=module.encoder,
            custom_decoder=decoder,
            batch_first=True,
        )
        for number, layer in enumerate(decoder.layers, start=1):
            name = f"decoder{number}"
            self.attention(f"{name}/attention", layer.self_attn)
            self.attention(f"{name}/cross", layer.multihead_attn)
            self.ends(name, layer, ["attention_norm", "cross_norm", "norm"])

    def logits(self, source, target):
        """Logits of every target."""
        later = torch.ones(target.shape[1], target.shape[1], dtype=torch.bool).triu(1)
        x = self.module.both(
            self.embedded(source),
            self.embedded(target),
            tgt_mask=later,
            src_key_padding_mask=source == 0,
            memory_key_padding_mask=source == 0,
        )
        return x @ self.module.embed.weight.T

    def forward(self, inputs):
        """Logits and their loss."""
        logits = self.logits(inputs["source"], inputs["target"])
        return logits, F.cross_entropy(logits.transpose(1, 2), inputs["labels"])

    def decoded(self, inputs):
        """Greedy tokens after the start token, 1."""
        tokens = torch.ones(len(inputs["source"]), 1, dtype=torch.int64)
        for _ in range(self.case.generation["count"]):
            best = self.logits(inputs["source"], tokens)[:, -1].argmax(-1, keepdim=True)
            tokens = torch.cat([tokens, best], 1)
        return tokens[:, 1:]


ORACLES = {"twotower": TwoTower, "encoder": Encoder, "transformer": Transformer}
for path, answers in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
    case = read_case(path, "sgd")
    np.savez(answers, **ORACLES[case.model](case).answers())
