"""Recurrent classifiers of token sequences: embedding, one recurrent layer, a dense head.

Sources: J. L. Elman, "Finding structure in time", Cognitive Science 14, 1990; S. Hochreiter,
J. Schmidhuber, "Long short-term memory", Neural Computation 9, 1997, with the forget gate of
F. A. Gers et al. 2000; K. Cho et al., "Learning phrase representations using RNN encoder-decoder",
EMNLP 2014, in the form that resets after the product with the recurrent kernel. This is the form of
cuDNN and the default of all frameworks here. The head reads the state after the last real token.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from levelfield.reference.spec import (
    GATE_COUNTS,
    PAD,
    Array,
    ArraySpec,
    Layers,
    Model,
    Objective,
    Sizes,
    dimension,
    draw_lengths,
    draw_rows,
    spread_lengths,
)


def inputs(sizes: Sizes, batch: int) -> tuple[ArraySpec, ...]:
    """tokens (batch, time), padded with 0; length (batch,); label (batch,)."""
    rows, lengths = dimension("batch", batch), lengths_of(sizes, batch)
    return (
        ArraySpec("tokens", (rows, dimension("time", sizes["time"])), classes=sizes["vocabulary"]),
        ArraySpec("length", (rows,), classes=sizes["time"] + 1, lengths=lengths),
        ArraySpec("label", (rows,), classes=sizes["classes"]),
    )


def lengths_of(sizes: Sizes, batch: int) -> tuple[int, ...]:
    """From all of the time down to a quarter of it."""
    return spread_lengths(max(sizes["time"] // 4, 1), sizes["time"], batch)


def draw(sizes: Sizes, batch: int, stream: np.random.Generator) -> dict[str, Array]:
    """Draw sequences of all lengths; the first has full length."""
    time, length = sizes["time"], draw_lengths(lengths_of(sizes, batch), stream)
    tokens = draw_rows(sizes["vocabulary"], (batch, time), stream, first=PAD + 1)
    return {"tokens": np.where(np.arange(time) < length[:, None], tokens, PAD), "length": length}


def forward(nn: Layers, sizes: Sizes, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Tokens and lengths -> logits (batch, classes)."""
    x = nn.embed(inputs["tokens"], "embed", count=sizes["vocabulary"], width=sizes["width"])
    x = nn.recurrent(x, inputs["length"], "recurrent", units=sizes["units"], cell=sizes["cell"])
    return {"logits": nn.dense(x, "logits", sizes["classes"])}


def derive(sizes: Sizes) -> Sizes:
    """gates: the columns of a recurrent kernel, all gates together."""
    return {"gates": GATE_COUNTS[sizes["cell"]] * sizes["units"]}


def _model(cell: str, title: str, source: str) -> Model:
    def sizes(vocabulary: int, time: int, width: int, units: int) -> Sizes:
        return {
            "cell": cell,
            "vocabulary": vocabulary,
            "time": time,
            "width": width,
            "units": units,
            "classes": 10,
        }

    return Model(
        name=cell,
        title=title,
        family="recurrent",
        source=source,
        presets={
            "tiny": sizes(20, 6, 5, 7),
            "small": sizes(300, 32, 64, 128),
            "paper": sizes(10_000, 100, 128, 512),
        },
        inputs=inputs,
        forward=forward,
        objectives=(Objective("softmax_cross_entropy", ("logits",), ("label",)),),
        derive=derive,
        data="digit rows",
        draw=draw,
        still=("embed/embedding",),
        module="recurrent",
    )


MODELS = (
    _model("rnn", "Elman network", "Elman 1990"),
    _model("lstm", "Long short-term memory", "Hochreiter, Schmidhuber 1997"),
    _model("gru", "Gated recurrent unit", "Cho et al. 2014, reset after the product"),
)
