"""Two towers: content-based retrieval, trained by a softmax over the items of the batch.

Source: X. Yi, J. Yang, L. Hong, D. Z. Cheng, L. Heldt, A. Kumthekar, Z. Zhao, L. Wei, E. Chi,
"Sampling-bias-corrected neural modeling for large corpus item recommendations", RecSys 2019,
section 3, with its normalised embeddings, without its correction for popular items, and with the
widths 1024-512-128 of its experiments. The paper tunes the temperature. Users and items are known
by their features alone: a user that was never seen in training has an embedding, too.
"""

from __future__ import annotations

from collections.abc import Mapping

from levelfield.reference.spec import (
    Array,
    ArraySpec,
    Layers,
    Model,
    Objective,
    Sizes,
    dimension,
)

TOWERS = ("user", "item")


def inputs(sizes: Sizes, batch: int) -> tuple[ArraySpec, ...]:
    """user (batch, user_features), item (batch, item_features): a row of each is a positive."""
    rows = dimension("batch", batch)
    return tuple(
        ArraySpec(tower, (rows, dimension("feature", sizes[f"{tower}_features"])))
        for tower in TOWERS
    )


def forward(nn: Layers, sizes: Sizes, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """-> logits (batch, batch): the score of every item of the batch for every user."""
    user, item = (embedding(nn, sizes, inputs[tower], tower) for tower in TOWERS)
    return {"logits": nn.scale(nn.match(user, item), 1 / sizes["temperature"])}


def embedding(nn: Layers, sizes: Sizes, x: Array, tower: str) -> Array:
    """Features (batch, features) -> (batch, width) of norm 1; ReLU between the dense layers."""
    first, *others = sizes["tower"]
    x = nn.dense(x, f"{tower}1", first)
    for number, units in enumerate(others, start=2):
        x = nn.dense(nn.relu(x), f"{tower}{number}", units)
    return nn.normalize(x)


def derive(sizes: Sizes) -> Sizes:
    """temperature: scores, which are cosines, are divided by it."""
    return {"temperature": 0.1}


def _sizes(user_features: int, item_features: int, *tower: int) -> Sizes:
    return {"user_features": user_features, "item_features": item_features, "tower": tower}


MODELS = (
    Model(
        name="twotower",
        title="Two towers",
        family="recommender",
        source="Yi et al. 2019",
        presets={
            "tiny": _sizes(6, 5, 7, 4),
            "small": _sizes(96, 128, 384, 192, 64),
            "paper": _sizes(512, 768, 1_024, 512, 128),
        },
        inputs=inputs,
        forward=forward,
        objectives=(Objective("in_batch_softmax", ("logits",)),),
        derive=derive,
        data="features",
        idle="user1/bias",
        still=("user1/kernel",),
    ),
)
