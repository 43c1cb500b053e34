"""The Transformer: its encoder as a classifier, and encoder and decoder together.

Source: A. Vaswani, N. Shazeer, N. Parmar, J. Uszkoreit, L. Jones, A. N. Gomez, L. Kaiser,
I. Polosukhin, "Attention is all you need", NIPS 2017, sections 3.1 to 3.5: the norm follows each
residual sum, ReLU, sinusoidal positions, one table for source, target and head, scaled by the
square root of the width where tokens are read. The paper names no layer-norm epsilon; 1e-6 is that
of its authors' tensor2tensor (https://github.com/tensorflow/tensor2tensor, common_layers.py).
Dropout and label smoothing are left out. The classifier reads the first position.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from levelfield.reference.spec import (
    PAD,
    Array,
    ArraySpec,
    Attend,
    Generation,
    Layers,
    Model,
    Objective,
    Sizes,
    dimension,
    draw_lengths,
    draw_rows,
    spread_lengths,
)

EPSILON = 1e-6
START = 1  # the token before the first one of a target


def lengths_of(time: int, batch: int) -> tuple[int, ...]:
    """From all of the time down to half of it."""
    return spread_lengths(max(time // 2, 1), time, batch)


def draw_padded(vocabulary: int, time: int, batch: int, stream: np.random.Generator) -> Array:
    """Draw sequences of all lengths, (batch, time); the first has full length."""
    length = draw_lengths(lengths_of(time, batch), stream)
    tokens = draw_rows(vocabulary, (batch, time), stream, first=PAD + 1)
    return np.where(np.arange(time) < length[:, None], tokens, PAD)


def classifier_inputs(sizes: Sizes, batch: int) -> tuple[ArraySpec, ...]:
    """tokens (batch, time), padded with 0; label (batch,)."""
    rows, time = dimension("batch", batch), sizes["time"]
    place = (rows, dimension("time", time))
    lengths = lengths_of(time, batch)
    return (
        ArraySpec("tokens", place, classes=sizes["vocabulary"], lengths=lengths),
        ArraySpec("label", (rows,), classes=sizes["classes"]),
    )


def draw_classifier(sizes: Sizes, batch: int, stream: np.random.Generator) -> dict[str, Array]:
    """Draw padded tokens."""
    return {"tokens": draw_padded(sizes["vocabulary"], sizes["time"], batch, stream)}


def inputs(sizes: Sizes, batch: int) -> tuple[ArraySpec, ...]:
    """source (batch, source_time), padded with 0; target and labels (batch, time)."""
    rows, vocabulary = dimension("batch", batch), sizes["vocabulary"]
    source = (rows, dimension("time", sizes["source_time"]))
    place, lengths = (
        (rows, dimension("time", sizes["time"])),
        lengths_of(sizes["source_time"], batch),
    )
    return (
        ArraySpec("source", source, classes=vocabulary, lengths=lengths),
        ArraySpec("target", place, classes=vocabulary),
        ArraySpec("labels", place, classes=vocabulary),
    )


def draw(sizes: Sizes, batch: int, stream: np.random.Generator) -> dict[str, Array]:
    """Draw sources of all lengths; a target is its labels, one later, after the start token."""
    vocabulary, time = sizes["vocabulary"], sizes["time"]
    labels = draw_rows(vocabulary, (batch, time), stream, first=PAD + 1)
    start = np.full((batch, 1), START, np.int32)
    return {
        "source": draw_padded(vocabulary, sizes["source_time"], batch, stream),
        "target": np.concatenate((start, labels[:, :-1]), 1),
        "labels": labels,
    }


def embed(nn: Layers, sizes: Sizes, tokens: Array, position: Array = 0) -> Array:
    """Scaled rows of the table plus positions: (batch, time) -> (batch, time, width)."""
    x = nn.embed(tokens, "embed", count=sizes["vocabulary"], width=sizes["width"])
    x = nn.scale(x, sizes["embed_scale"])
    return nn.add(x, nn.sinusoids(x, position=position, count=sizes["longest"]))


def encoded(nn: Layers, sizes: Sizes, tokens: Array) -> tuple[Array, Array]:
    """tokens (batch, time) -> (batch, time, width), and the mask of real tokens."""
    x, mask = embed(nn, sizes, tokens), nn.real(tokens)
    attend = partial(nn.attention, heads=sizes["heads"], mask=mask)
    for number in range(1, sizes["layers"] + 1):
        name = f"encoder{number}"
        key, value = keys_and_values(nn, sizes, x, f"{name}/attention")
        x = attended(nn, sizes, x, f"{name}/attention", partial(attend, key=key, value=value))
        x = feed_forward(nn, sizes, x, name)
    return x, mask


def keys_and_values(nn: Layers, sizes: Sizes, x: Array, name: str) -> tuple[Array, Array]:
    """Project (batch, time, width) to keys and values of that shape."""
    width = sizes["width"]
    return nn.dense(x, f"{name}/key", width), nn.dense(x, f"{name}/value", width)


def attended(nn: Layers, sizes: Sizes, x: Array, name: str, attend: Attend) -> Array:
    """Add ``attend(query)`` to x; a norm follows the sum."""
    width = sizes["width"]
    y = nn.dense(attend(nn.dense(x, f"{name}/query", width)), f"{name}/out", width)
    return nn.layer_norm(nn.add(x, y), f"{name}_norm", epsilon=EPSILON)


def feed_forward(nn: Layers, sizes: Sizes, x: Array, name: str) -> Array:
    """Add a hidden layer to x; a norm follows the sum."""
    y = nn.relu(nn.dense(x, f"{name}/hidden", sizes["hidden"]))
    y = nn.dense(y, f"{name}/out", sizes["width"])
    return nn.layer_norm(nn.add(x, y), f"{name}/norm", epsilon=EPSILON)


def encode(nn: Layers, sizes: Sizes, source: Array) -> Any:
    """-> the mask of the source, and for each layer of the decoder its keys and values."""
    x, mask = encoded(nn, sizes, source)
    names = [f"decoder{number}/cross" for number in range(1, sizes["layers"] + 1)]
    return mask, [keys_and_values(nn, sizes, x, name) for name in names]


def decoder_layer(
    nn: Layers, sizes: Sizes, x: Array, name: str, *, attend: Attend, memory: Attend
) -> Array:
    """``attend(query, key, value)`` over targets, ``memory(query)``, and a hidden layer."""
    key, value = keys_and_values(nn, sizes, x, f"{name}/attention")
    own = partial(attend, key=key, value=value)
    x = attended(nn, sizes, x, f"{name}/attention", own)
    x = attended(nn, sizes, x, f"{name}/cross", memory)
    return feed_forward(nn, sizes, x, name)


def over_memory(nn: Layers, sizes: Sizes, memory: Any) -> list[Attend]:
    """Return attention over the source for each layer of the decoder."""
    mask, pairs = memory
    attend = partial(nn.attention, heads=sizes["heads"], mask=mask)
    return [partial(attend, key=key, value=value) for key, value in pairs]


def logits(nn: Layers, sizes: Sizes, memory: Any, tokens: Array) -> Array:
    """tokens (batch, time) -> logits (batch, time, vocabulary) by the tied head."""
    x = embed(nn, sizes, tokens)
    attend = partial(nn.attention, heads=sizes["heads"], causal=True)
    for number, source in enumerate(over_memory(nn, sizes, memory), start=1):
        x = decoder_layer(nn, sizes, x, f"decoder{number}", attend=attend, memory=source)
    return nn.project_to_embedding(x, "embed")


def forward(nn: Layers, sizes: Sizes, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """-> logits (batch, time, vocabulary)."""
    return {"logits": logits(nn, sizes, encode(nn, sizes, inputs["source"]), inputs["target"])}


def begin(nn: Any, sizes: Sizes, batch: int) -> Any:
    """Make a pair of keys and values per layer of the decoder, with room for all tokens."""
    room = sizes["new_tokens"]
    return [nn.empty_cache(batch, room, sizes["width"]) for _ in range(sizes["layers"])]


def advance(nn: Any, sizes: Sizes, tokens: Array, position: Any, cache: Any) -> tuple[Array, Any]:
    """Append tokens (batch, n) at ``position`` -> logits (batch, vocabulary) after the last."""
    memory, old = cache
    x, kept = embed(nn, sizes, tokens, position), []
    for number, source in enumerate(over_memory(nn, sizes, memory), start=1):

        def attend(query: Array, key: Array, value: Array, number: int = number) -> Array:
            out, new = nn.cached_attention(
                query,
                key,
                value,
                heads=sizes["heads"],
                position=position,
                cache=old[number - 1],
            )
            kept.append(new)
            return out

        x = decoder_layer(nn, sizes, x, f"decoder{number}", attend=attend, memory=source)
    return nn.project_to_embedding(nn.last(x), "embed"), (memory, kept)


def classify(nn: Layers, sizes: Sizes, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Tokens -> logits (batch, classes)."""
    x, _ = encoded(nn, sizes, inputs["tokens"])
    return {"logits": nn.dense(nn.first(x), "logits", sizes["classes"])}


def derive(sizes: Sizes) -> Sizes:
    """Widths of a head and of hidden layers, the scale of embeddings, and the most positions."""
    times = (sizes[name] for name in ("time", "source_time", "new_tokens") if name in sizes)
    return {
        "head_width": sizes["width"] // sizes["heads"],
        "hidden": 4 * sizes["width"],
        "embed_scale": float(sizes["width"]) ** 0.5,
        "longest": max(times),
    }


def _sizes(vocabulary: int, width: int, layers: int, heads: int, **others: int) -> Sizes:
    return {"vocabulary": vocabulary, "width": width, "layers": layers, "heads": heads, **others}


MODELS = (
    Model(
        name="encoder",
        title="Transformer encoder",
        family="transformer",
        source="Vaswani et al. 2017",
        presets={
            "tiny": _sizes(20, 8, 2, 2, time=6, classes=10),
            "small": _sizes(300, 128, 2, 4, time=32, classes=10),
            "paper": _sizes(37_000, 512, 6, 8, time=64, classes=10),
        },
        inputs=classifier_inputs,
        forward=classify,
        objectives=(Objective("softmax_cross_entropy", ("logits",), ("label",)),),
        derive=derive,
        data="digit rows",
        draw=draw_classifier,
        module="transformer",
        idle="encoder1/hidden/bias",
        still=("embed/embedding", "encoder1/hidden/kernel"),
    ),
    Model(
        name="transformer",
        title="Transformer",
        family="transformer",
        source="Vaswani et al. 2017",
        presets={
            "tiny": _sizes(30, 8, 2, 2, source_time=6, time=7, new_tokens=5),
            "small": _sizes(1_000, 128, 2, 4, source_time=32, time=24, new_tokens=32),
            "paper": _sizes(37_000, 512, 6, 8, source_time=64, time=48, new_tokens=8),
        },
        inputs=inputs,
        forward=forward,
        objectives=(Objective("softmax_cross_entropy", ("logits",), ("labels",)),),
        derive=derive,
        generation=Generation(
            prompt="source",
            count=lambda sizes: int(sizes["new_tokens"]),
            logits=logits,
            begin=begin,
            advance=advance,
            encode=encode,
            start=START,
        ),
        draw=draw,
        idle="encoder1/hidden/bias",
        still=("encoder1/hidden/kernel",),
    ),
)
