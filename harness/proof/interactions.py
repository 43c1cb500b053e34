"""Synthetic users and items, for testing whether a recommender generalises.

Every user and item has four hidden factors, and an item also has a popularity. A user interacts
with the items that score highest under Gumbel noise. This draws without replacement in proportion
to the exponential of the score (W. Kool, H. van Hoof, M. Welling, "Stochastic beams and where to
find them", ICML 2019, section 2). The protocol is that of X. He et al., "Neural collaborative
filtering", WWW 2017, section 4.1. One interaction of each user is held out and ranked among 99
items with which the user did not interact. For each interaction, four other items are learned as
negatives.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

FACTORS, INTERACTIONS, NEGATIVES = 4, 12, 4
CANDIDATES, TOP = 100, 10
OFFERED, APPEAL, FEATURE_NOISE = 100, 3.0, 0.1
Examples = tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]
Features = dict[str, NDArray[np.float32]]


def draw_interactions(
    users: int, items: int, stream: np.random.Generator
) -> tuple[Examples, Examples]:
    """Draw (user, item, label) to learn from and to rank.

    The examples to rank are ordered by users: 1 held out, 99 others. Raises ValueError if the
    items are too few.
    """
    if items < INTERACTIONS + CANDIDATES:
        raise ValueError(f"{items} items are fewer than {INTERACTIONS + CANDIDATES}")
    taste, nature = (stream.standard_normal((n, FACTORS)) for n in (users, items))
    score = taste @ nature.T + stream.standard_normal(items) + stream.gumbel(size=(users, items))
    order = np.argsort(-score, axis=1)
    other_items = stream.permuted(order[:, INTERACTIONS:], axis=1)
    positives = stream.permuted(order[:, :INTERACTIONS], axis=1)
    learned_items = positives[:, 1:]
    ranked = np.concatenate((positives[:, :1], other_items[:, : CANDIDATES - 1]), axis=1)
    negatives = other_items[
        np.arange(users)[:, None], _places(other_items, learned_items.shape[1], stream)
    ]
    return (
        _examples(np.concatenate((learned_items, negatives), axis=1), learned_items.shape[1]),
        _examples(ranked, 1),
    )


def draw_matches(
    user_features: int, item_features: int, count: int, stream: np.random.Generator
) -> Features:
    """Draw ``count`` users, and for each the best of ``OFFERED`` items under Gumbel noise.

    They are known by features alone: noisy bounded mixtures of their hidden factors. No user or
    item comes twice, so a test asks about users and items that were never learned. Returns "user"
    (count, user_features) and "item" (count, item_features).
    """
    taste = stream.standard_normal((count, FACTORS))
    offered = stream.standard_normal((count, OFFERED, FACTORS))
    score = APPEAL * np.einsum("uf,uif->ui", taste, offered)
    score += stream.gumbel(size=(count, OFFERED))
    chosen = offered[np.arange(count), score.argmax(axis=1)]
    features = {}
    for name, factors, width in (("user", taste, user_features), ("item", chosen, item_features)):
        mixed = np.tanh(factors @ stream.standard_normal((FACTORS, width)))
        features[name] = (mixed + FEATURE_NOISE * stream.standard_normal(mixed.shape)).astype(
            np.float32
        )
    return features


def _places(
    other_items: NDArray[Any], count: int, stream: np.random.Generator
) -> NDArray[np.int64]:
    """Draw the places of the negatives, each independently; ranked items may be among them."""
    return stream.integers(0, other_items.shape[1], (len(other_items), NEGATIVES * count))


def _examples(items: NDArray[Any], positives: int) -> Examples:
    """Return (user, item, label); the first ``positives`` items of each user are interactions."""
    user = np.repeat(np.arange(len(items)), items.shape[1])
    label = np.tile(np.arange(items.shape[1]) < positives, len(items))
    return user.astype(np.int32), items.reshape(-1).astype(np.int32), label.astype(np.int32)


def hit_rate(scores: NDArray[np.float64]) -> float:
    """Share of users whose held-out item, the first of every 100, is among the ten best.

    Ties count against the model: one that gives all items the same score hits nothing.
    """
    of_users = scores.reshape(-1, CANDIDATES)
    better = (of_users[:, 1:] >= of_users[:, :1]).sum(axis=1)
    return float((better < TOP).mean())
