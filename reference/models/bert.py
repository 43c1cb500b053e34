"""BERT: Transformer encoder with pooler, and the masked-language-model head with tied weights.

Source: J. Devlin, M.-W. Chang, K. Lee, K. Toutanova, "BERT: Pre-training of deep bidirectional
transformers for language understanding", NAACL 2019, section 3, and the official implementation
(https://github.com/google-research/bert, modeling.py and run_pretraining.py): norm after the
residual, exact GELU, layer-norm epsilon 1e-12, the head over the masked positions only.
Training uses the masked-language-model objective. The pooler stays in the model, although this
objective does not depend on it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from levelfield.reference.spec import (
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

EPSILON = 1e-12
SEGMENTS = 2


def inputs(sizes: Sizes, batch: int) -> tuple[ArraySpec, ...]:
    """tokens, segments and mask (batch, time); positions and labels (batch, count)."""
    rows, time = dimension("batch", batch), dimension("time", sizes["time"])
    masked = (rows, dimension("count", sizes["masked"]))
    return (
        ArraySpec("tokens", (rows, time), classes=sizes["vocabulary"]),
        ArraySpec("segments", (rows, time), classes=SEGMENTS),
        ArraySpec("mask", (rows, time), classes=2, lengths=lengths_of(sizes, batch)),
        ArraySpec("positions", masked, classes=sizes["time"]),
        ArraySpec("labels", masked, classes=sizes["vocabulary"]),
    )


def lengths_of(sizes: Sizes, batch: int) -> tuple[int, ...]:
    """From all of the time down to half of it, and at least to the masked positions."""
    return spread_lengths(max(sizes["time"] // 2, sizes["masked"]), sizes["time"], batch)


def draw(sizes: Sizes, batch: int, stream: np.random.Generator) -> dict[str, Array]:
    """Draw sequences of all lengths; masked positions are real ones, in order."""
    time, count = sizes["time"], sizes["masked"]
    length = draw_lengths(lengths_of(sizes, batch), stream)
    mask = np.arange(time) < length[:, None]
    tokens = draw_rows(sizes["vocabulary"], (batch, time), stream)
    second = np.arange(time) >= length[:, None] // 2
    chosen = [np.sort(stream.choice(size, count, replace=False)) for size in length]
    return {
        "tokens": np.where(mask, tokens, 0),
        "segments": (second & mask).astype(np.int32),
        "mask": mask.astype(np.int32),
        "positions": np.stack(chosen).astype(np.int32),
    }


def forward(nn: Layers, sizes: Sizes, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """-> pooled (batch, width) and logits (batch, count, vocabulary) of the masked positions."""
    width = sizes["width"]
    x = nn.embed(inputs["tokens"], "token_embed", count=sizes["vocabulary"], width=width)
    x = nn.add(x, nn.embed(inputs["segments"], "segment_embed", count=SEGMENTS, width=width))
    x = nn.add(x, nn.first_embeddings(x, "position_embed", count=sizes["positions"]))
    x = nn.layer_norm(x, "embeddings_norm", epsilon=EPSILON)
    for number in range(1, sizes["layers"] + 1):
        x = layer(nn, sizes, x, inputs["mask"], f"layers{number}")
    pooled = nn.tanh(nn.dense(nn.first(x), "pooler", width))
    x = nn.gelu(nn.dense(nn.take(x, inputs["positions"]), "transform", width))
    x = nn.layer_norm(x, "transform_norm", epsilon=EPSILON)
    return {"pooled": pooled, "logits": nn.project_to_embedding(x, "token_embed", bias="logits")}


def layer(nn: Layers, sizes: Sizes, x: Array, mask: Array, name: str) -> Array:
    """Self-attention and a hidden layer; a norm follows each sum."""
    width = sizes["width"]
    query, key, value = (
        nn.dense(x, f"{name}/attention/{part}", width) for part in ("query", "key", "value")
    )
    y = nn.attention(query, key, value, heads=sizes["heads"], mask=mask)
    y = nn.dense(y, f"{name}/attention/out", width)
    x = nn.layer_norm(nn.add(x, y), f"{name}/attention_norm", epsilon=EPSILON)
    y = nn.gelu(nn.dense(x, f"{name}/hidden", sizes["hidden"]))
    y = nn.dense(y, f"{name}/out", width)
    return nn.layer_norm(nn.add(x, y), f"{name}/norm", epsilon=EPSILON)


def derive(sizes: Sizes) -> Sizes:
    """head_width: of each head of attention; hidden: the width of the hidden layers."""
    return {"head_width": sizes["width"] // sizes["heads"], "hidden": 4 * sizes["width"]}


def _sizes(  # noqa: PLR0917 - a call is a row of the table of presets below
    vocabulary: int, positions: int, width: int, layers: int, heads: int, time: int, masked: int
) -> Sizes:
    return {
        "vocabulary": vocabulary,
        "positions": positions,
        "width": width,
        "layers": layers,
        "heads": heads,
        "time": time,
        "masked": masked,
    }


MODELS = (
    Model(
        name="bert",
        title="BERT",
        family="transformer",
        source="Devlin et al. 2018",
        presets={
            "tiny": _sizes(30, 9, 8, 2, 2, 7, 2),
            "small": _sizes(1_000, 64, 128, 2, 4, 32, 5),
            "paper": _sizes(30_522, 512, 768, 12, 12, 64, 10),
        },
        inputs=inputs,
        forward=forward,
        objectives=(Objective("softmax_cross_entropy", ("logits",), ("labels",)),),
        derive=derive,
        draw=draw,
        still=("position_embed/embedding",),
    ),
)
