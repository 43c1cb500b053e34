"""BERT as a functional Keras model on ``MultiHeadAttention`` and ``ReversibleEmbedding``.

Follows https://keras.io/examples/nlp/text_classification_with_transformer/ and, for the head over
the masked positions, https://keras.io/keras_hub/api/modeling_layers/masked_lm_head/
"""

import keras
from keras import layers, ops

EPSILON = 1e-12


class PositionEmbedding(layers.Embedding):
    """The first rows of a table, one for each position."""

    def call(self, x):
        """(batch, time, width) -> (time, width)."""
        return super().call(ops.arange(x.shape[1]))

    def compute_output_shape(self, input_shape):
        """Return the shape without the batch."""
        return input_shape[1:]


class MaskedPositions(layers.Layer):
    """The rows at the masked positions."""

    def call(self, x, positions):
        """(batch, time, width), (batch, count) -> (batch, count, width)."""
        return ops.take_along_axis(x, positions[:, :, None], axis=1)


class Bias(layers.Layer):
    """The bias of the tied head."""

    def build(self, input_shape):
        """Make one bias for every token."""
        self.bias = self.add_weight(shape=input_shape[-1:], initializer="zeros", name="bias")

    def call(self, x):
        """(..., units) -> (..., units)."""
        return x + self.bias


def norm(name):
    """Layer norm with BERT's epsilon."""
    return layers.LayerNormalization(epsilon=EPSILON, name=name)


def build(sizes):
    """Sizes of the preset -> model: tokens, segments, mask, positions -> pooled and logits."""
    width, vocabulary = sizes["width"], sizes["vocabulary"]
    inputs = {
        name: keras.Input((sizes[time],), dtype="int32", name=name)
        for name, time in (
            ("tokens", "time"),
            ("segments", "time"),
            ("mask", "time"),
            ("positions", "masked"),
        )
    }
    tokens = layers.ReversibleEmbedding(vocabulary, width, name="token_embed")
    x = tokens(inputs["tokens"])
    x = layers.Add()([x, layers.Embedding(2, width, name="segment_embed")(inputs["segments"])])
    x = x + PositionEmbedding(sizes["positions"], width, name="position_embed")(x)
    x = norm("embeddings_norm")(x)
    keys = ops.expand_dims(inputs["mask"], 1)  # (batch, queries, keys)
    for number in range(1, sizes["layers"] + 1):
        x = encode(x, keys, sizes, f"layers{number}")
    pooled = layers.Dense(width, activation="tanh", name="pooler")(x[:, 0])
    x = MaskedPositions()(x, inputs["positions"])
    x = norm("transform_norm")(layers.Dense(width, activation="gelu", name="transform")(x))
    logits = Bias(name="logits")(tokens(x, reverse=True))
    return keras.Model(inputs, {"pooled": pooled, "logits": logits})


def encode(x, mask, sizes, name):
    """Apply one layer; a layer norm follows each residual sum."""
    heads, head_width = sizes["heads"], sizes["head_width"]
    attention = layers.MultiHeadAttention(heads, head_width, name=f"{name}_attention")
    x = norm(f"{name}_attention_norm")(x + attention(x, x, attention_mask=mask))
    y = layers.Dense(sizes["hidden"], activation="gelu", name=f"{name}_hidden")(x)
    return norm(f"{name}_norm")(x + layers.Dense(sizes["width"], name=f"{name}_out")(y))
