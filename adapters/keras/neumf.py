"""Neural matrix factorisation as a functional Keras model.

Follows https://keras.io/examples/structured_data/collaborative_filtering_movielens/
"""

import keras
from keras import layers


def build(sizes):
    """Sizes of the preset -> model: user, item -> logits (batch, 1)."""
    user = keras.Input((), dtype="int32", name="user")
    item = keras.Input((), dtype="int32", name="item")

    def embeddings(part, width):
        return [
            layers.Embedding(sizes["users"], width, name=f"{part}_user")(user),
            layers.Embedding(sizes["items"], width, name=f"{part}_item")(item),
        ]

    factors = layers.Multiply()(embeddings("factor", sizes["factors"]))
    x = layers.Concatenate()(embeddings("tower", sizes["tower_embedding"]))
    for number, units in enumerate(sizes["tower"][1:], start=1):
        x = layers.Dense(units, activation="relu", name=f"hidden{number}")(x)
    x = layers.Concatenate()([factors, x])
    return keras.Model({"user": user, "item": item}, layers.Dense(1, name="logits")(x))
