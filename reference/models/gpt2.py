"""GPT-2: decoder-only Transformer with tied head; trained on the next token, decoded greedily.

Source: A. Radford, J. Wu, R. Child, D. Luan, D. Amodei, I. Sutskever, "Language models are
unsupervised multitask learners", 2019, section 2.3, and the official implementation
(https://github.com/openai/gpt-2, src/model.py): norm before each sublayer, GELU by tanh,
layer-norm epsilon 1e-5, learned positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from levelfield.reference.spec import (
    Array,
    ArraySpec,
    Attend,
    Generation,
    Layers,
    Model,
    Objective,
    Sizes,
    dimension,
    draw_rows,
)

EPSILON = 1e-5


def inputs(sizes: Sizes, batch: int) -> tuple[ArraySpec, ...]:
    """tokens and labels (batch, time); prompt (batch, prompt)."""
    rows, vocabulary = dimension("batch", batch), sizes["vocabulary"]
    time = (rows, dimension("time", sizes["time"]))
    return (
        ArraySpec("tokens", time, classes=vocabulary),
        ArraySpec("labels", time, classes=vocabulary),
        ArraySpec("prompt", (rows, dimension("time", sizes["prompt"])), classes=vocabulary),
    )


def draw(sizes: Sizes, batch: int, stream: Any) -> dict[str, Array]:
    """Draw tokens by :func:`draw_rows`."""
    return {"tokens": draw_rows(sizes["vocabulary"], (batch, sizes["time"]), stream)}


def logits(nn: Layers, sizes: Sizes, memory: None, tokens: Array) -> Array:
    """tokens (batch, time) -> logits (batch, time, vocabulary)."""
    x = nn.embed(tokens, "token_embed", count=sizes["vocabulary"], width=sizes["width"])
    x = nn.add(x, nn.first_embeddings(x, "position_embed", count=sizes["positions"]))
    attend = partial(nn.attention, heads=sizes["heads"], causal=True)
    for number in range(1, sizes["layers"] + 1):
        x = layer(nn, sizes, x, f"layers{number}", attend)
    return nn.project_to_embedding(nn.layer_norm(x, "norm", epsilon=EPSILON), "token_embed")


def forward(nn: Layers, sizes: Sizes, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """-> logits (batch, time, vocabulary)."""
    return {"logits": logits(nn, sizes, None, inputs["tokens"])}


def layer(nn: Layers, sizes: Sizes, x: Array, name: str, attend: Attend) -> Array:
    """Causal self-attention and a hidden layer, each after a norm."""
    width = sizes["width"]
    y = nn.layer_norm(x, f"{name}/attention_norm", epsilon=EPSILON)
    query, key, value = (
        nn.dense(y, f"{name}/attention/{part}", width) for part in ("query", "key", "value")
    )
    y = attend(query, key, value)
    x = nn.add(x, nn.dense(y, f"{name}/attention/out", width))
    y = nn.layer_norm(x, f"{name}/norm", epsilon=EPSILON)
    y = nn.gelu_tanh(nn.dense(y, f"{name}/hidden", sizes["hidden"]))
    return nn.add(x, nn.dense(y, f"{name}/out", width))


def begin(nn: Any, sizes: Sizes, batch: int) -> Any:
    """Make a pair of keys and values per layer, with room for prompt and tokens."""
    time = sizes["prompt"] + sizes["new_tokens"]
    return [nn.empty_cache(batch, time, sizes["width"]) for _ in range(sizes["layers"])]


def advance(nn: Any, sizes: Sizes, tokens: Array, position: Any, cache: Any) -> tuple[Array, Any]:
    """Append tokens (batch, n) at ``position`` -> logits (batch, vocabulary) after the last."""
    x = nn.embed(tokens, "token_embed", count=sizes["vocabulary"], width=sizes["width"])
    x = nn.add(x, nn.embeddings_from("position_embed", position, tokens.shape[1]))
    kept = []
    for number, old in enumerate(cache, start=1):

        def attend(query: Array, key: Array, value: Array, old: Any = old) -> Array:
            out, new = nn.cached_attention(
                query, key, value, heads=sizes["heads"], position=position, cache=old
            )
            kept.append(new)
            return out

        x = layer(nn, sizes, x, f"layers{number}", attend)
    x = nn.layer_norm(nn.last(x), "norm", epsilon=EPSILON)
    return nn.project_to_embedding(x, "token_embed"), kept


def derive(sizes: Sizes) -> Sizes:
    """head_width: of each head of attention; hidden: the width of the hidden layers."""
    return {"head_width": sizes["width"] // sizes["heads"], "hidden": 4 * sizes["width"]}


def _sizes(
    vocabulary: int, positions: int, width: int, layers: int, heads: int, *times: int
) -> Sizes:
    time, prompt, new_tokens = times
    return {
        "vocabulary": vocabulary,
        "positions": positions,
        "width": width,
        "layers": layers,
        "heads": heads,
        "time": time,
        "prompt": prompt,
        "new_tokens": new_tokens,
    }


MODELS = (
    Model(
        name="gpt2",
        title="GPT-2",
        family="transformer",
        source="Radford et al. 2019",
        presets={
            "tiny": _sizes(30, 16, 8, 2, 2, 7, 4, 5),
            "small": _sizes(1_000, 128, 128, 2, 4, 32, 32, 32),
            "paper": _sizes(50_257, 1_024, 768, 12, 12, 64, 16, 8),
        },
        inputs=inputs,
        forward=forward,
        objectives=(Objective("softmax_cross_entropy", ("logits",), ("labels",)),),
        derive=derive,
        generation=Generation(
            prompt="prompt",
            count=lambda sizes: int(sizes["new_tokens"]),
            logits=logits,
            begin=begin,
            advance=advance,
        ),
        draw=draw,
        still=("position_embed/embedding",),
    ),
)
