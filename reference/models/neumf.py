"""Neural matrix factorisation: a product of factors next to a tower of dense layers.

Source: X. He, L. Liao, H. Zhang, L. Nie, X. Hu, T.-S. Chua, "Neural collaborative filtering", WWW
2017, section 3.4 and figure 3. The paper preset has the users and items of MovieLens 1M, 8
predictive factors and the tower 64-32-16-8.
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
    draw_rows,
)


def inputs(sizes: Sizes, batch: int) -> tuple[ArraySpec, ...]:
    """user (batch,), item (batch,); label (batch, 1): 1 for an interaction, 0 for none."""
    rows = dimension("batch", batch)
    return (
        ArraySpec("user", (rows,), classes=sizes["users"]),
        ArraySpec("item", (rows,), classes=sizes["items"]),
        ArraySpec("label", (rows, dimension("out", 1))),
    )


def draw(sizes: Sizes, batch: int, stream: np.random.Generator) -> dict[str, Array]:
    """Draw users and items by :func:`draw_rows`; one in five is an interaction (four negatives)."""
    return {
        "user": draw_rows(sizes["users"], (batch,), stream),
        "item": draw_rows(sizes["items"], (batch,), stream),
        "label": (stream.random((batch, 1)) < 0.2).astype(np.float32),
    }


def forward(nn: Layers, sizes: Sizes, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """User and item -> logits (batch, 1)."""
    user, item, tower = inputs["user"], inputs["item"], sizes["tower"]

    def embeddings(part: str, width: int) -> tuple[Array, Array]:
        return (
            nn.embed(user, f"{part}_user", count=sizes["users"], width=width),
            nn.embed(item, f"{part}_item", count=sizes["items"], width=width),
        )

    factors = nn.multiply(*embeddings("factor", sizes["factors"]))
    x = nn.concatenate(*embeddings("tower", sizes["tower_embedding"]))
    for number, units in enumerate(tower[1:], start=1):
        x = nn.relu(nn.dense(x, f"hidden{number}", units))
    return {"logits": nn.dense(nn.concatenate(factors, x), "logits", 1)}


def derive(sizes: Sizes) -> Sizes:
    """tower_embedding: the width of each of the tower's two tables; joined: of the head's input."""
    tower = sizes["tower"]
    return {"tower_embedding": tower[0] // 2, "joined": sizes["factors"] + tower[-1]}


MODELS = (
    Model(
        name="neumf",
        title="Neural matrix factorisation",
        family="recommender",
        source="He et al. 2017",
        presets={
            "tiny": {"users": 11, "items": 13, "factors": 3, "tower": (8, 6, 4)},
            "small": {"users": 500, "items": 400, "factors": 8, "tower": (64, 32, 16, 8)},
            "paper": {"users": 6_040, "items": 3_706, "factors": 8, "tower": (64, 32, 16, 8)},
        },
        inputs=inputs,
        forward=forward,
        objectives=(Objective("binary_cross_entropy", ("logits",), ("label",)),),
        derive=derive,
        data="interactions",
        draw=draw,
        still=tuple(
            f"{part}_{what}/embedding" for part in ("factor", "tower") for what in ("user", "item")
        ),
    ),
)
