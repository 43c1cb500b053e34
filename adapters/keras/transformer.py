"""The Transformer as subclassed Keras models on ``MultiHeadAttention``.

Follows https://keras.io/examples/nlp/neural_machine_translation_with_transformer/,
https://keras.io/keras_hub/api/modeling_layers/sine_position_encoding/,
https://keras.io/keras_hub/api/modeling_layers/transformer_decoder/ (whose caches hold keys and
values of targets and of the source) and https://keras.io/keras_hub/api/samplers/ (a
``keras.ops.while_loop``) (2026-11).
"""

import keras
import numpy as np
from keras import layers, ops

EPSILON = 1e-6
PAD, START = 0, 1


def sinusoids(count, width):
    """Sines and cosines, neighbours where they have one frequency: (count, width)."""
    angles = np.arange(count)[:, None] * 10_000.0 ** (-np.arange(0, width, 2) / width)
    table = np.stack([np.sin(angles), np.cos(angles)], axis=-1)
    return table.reshape(count, width).astype("float32")


def norm(name):
    """Layer norm with the model's epsilon."""
    return layers.LayerNormalization(epsilon=EPSILON, name=name)


class CachedAttention(layers.MultiHeadAttention):
    """Attention to keys and values that were projected before, by the layer's own projections."""

    def remember(self, x):
        """Keys and values, (batch, time, heads, width / heads) each."""
        return self._key_dense(x), self._value_dense(x)

    def over(self, x, keys, values, mask):
        """(batch, time, width) -> (batch, time, width)."""
        out, _ = self._compute_attention(self._query_dense(x), keys, values, attention_mask=mask)
        return self._output_dense(out)

    def advance(self, x, position, cache):
        """Process new positions; also return the cache with their keys and values."""
        key, value = self.remember(x)
        keys = ops.slice_update(cache[0], [0, position, 0, 0], key)
        values = ops.slice_update(cache[1], [0, position, 0, 0], value)
        times = ops.arange(keys.shape[1])
        seen = times[None] <= (position + ops.arange(x.shape[1]))[:, None]
        return self.over(x, keys, values, seen[None]), (keys, values)


class EncoderLayer(layers.Layer):
    """Attention and a hidden layer; a layer norm follows each residual sum."""

    def __init__(self, sizes, **options):
        super().__init__(**options)
        self.attention = CachedAttention(sizes["heads"], sizes["head_width"], name="attention")
        self.attention_norm = norm("attention_norm")
        self.hidden = layers.Dense(sizes["hidden"], activation="relu", name="hidden")
        self.out = layers.Dense(sizes["width"], name="out")
        self.norm = norm("norm")

    def feed_forward(self, x):
        """(batch, time, width) -> (batch, time, width)."""
        return self.norm(x + self.out(self.hidden(x)))

    def call(self, x, mask):
        """(batch, time, width), (batch, queries, time) -> (batch, time, width)."""
        y = self.attention(x, x, attention_mask=mask)
        return self.feed_forward(self.attention_norm(x + y))


class DecoderLayer(EncoderLayer):
    """Causal attention, attention to the memory, and a hidden layer."""

    def __init__(self, sizes, **options):
        super().__init__(sizes, **options)
        self.cross = CachedAttention(sizes["heads"], sizes["head_width"], name="cross")
        self.cross_norm = norm("cross_norm")

    def call(self, x, memory, mask):
        """(batch, time, width), (batch, source_time, width) -> (batch, time, width)."""
        x = self.attention_norm(x + self.attention(x, x, use_causal_mask=True))
        y = self.cross(x, memory, attention_mask=mask)
        return self.feed_forward(self.cross_norm(x + y))

    def advance(self, x, position, cache, memory, mask):
        """Process new positions over the cache and the source's keys and values."""
        y, cache = self.attention.advance(x, position, cache)
        x = self.attention_norm(x + y)
        x = self.cross_norm(x + self.cross.over(x, *memory, mask))
        return self.feed_forward(x), cache


class Encoder(keras.Model):
    """Embeddings, positions and the layers of the encoder."""

    def __init__(self, sizes):
        super().__init__()
        width, depth = sizes["width"], sizes["layers"]
        self.embed = layers.ReversibleEmbedding(sizes["vocabulary"], width, name="embed")
        self.encoder = [EncoderLayer(sizes, name=f"encoder{n}") for n in range(1, depth + 1)]
        self.scale = sizes["embed_scale"]
        self.places = sinusoids(sizes["longest"], width)

    def embedded(self, tokens):
        """(batch, time) -> (batch, time, width)."""
        places = ops.convert_to_tensor(self.places[: tokens.shape[1]])
        return self.embed(tokens) * self.scale + places

    def encoded(self, tokens):
        """(batch, time) -> (batch, time, width), and the mask (batch, 1, time) of its keys."""
        x, mask = self.embedded(tokens), ops.not_equal(tokens, PAD)[:, None]
        for layer in self.encoder:
            x = layer(x, mask)
        return x, mask


class Classifier(Encoder):
    """The encoder, and a head on the first position."""

    def __init__(self, sizes):
        super().__init__(sizes)
        self.logits = layers.Dense(sizes["classes"], name="logits")

    def call(self, tokens):
        """(batch, time) -> logits (batch, classes)."""
        x, _ = self.encoded(tokens)
        return self.logits(x[:, 0])


class Transformer(Encoder):
    """Encoder and decoder with one table for source, target and head."""

    def __init__(self, sizes):
        super().__init__(sizes)
        self.heads, self.head_width = sizes["heads"], sizes["head_width"]
        names = [f"decoder{number}" for number in range(1, sizes["layers"] + 1)]
        self.decoder = [DecoderLayer(sizes, name=name) for name in names]

    def call(self, inputs):
        """source (batch, source_time), target (batch, time) -> logits (batch, time, vocabulary)."""
        memory, mask = self.encoded(inputs["source"])
        x = self.embedded(inputs["target"])
        for layer in self.decoder:
            x = layer(x, memory, mask)
        return self.embed(x, reverse=True)

    def empty_cache(self, batch, time):
        """Keys and values per layer, (batch, time, heads, width / heads) each."""
        zeros = ops.zeros((batch, time, self.heads, self.head_width))
        return [(zeros, zeros) for _ in self.decoder]

    def advance(self, tokens, position, cache, memory, mask):
        """(batch, n) tokens from ``position`` on -> the token after the last, and the cache."""
        places = ops.take(self.places, position + ops.arange(tokens.shape[1]), axis=0)
        x, kept = self.embed(tokens) * self.scale + places, []
        for layer, old, pair in zip(self.decoder, cache, memory, strict=True):
            x, new = layer.advance(x, position, old, pair, mask)
            kept.append(new)
        return ops.argmax(self.embed(x[:, -1], reverse=True), axis=-1), kept


def build(sizes):
    """The encoder as a classifier where there are classes, else encoder and decoder."""
    tokens = ops.ones((1, sizes["time"]), "int32")
    if "classes" in sizes:
        model = Classifier(sizes)
        model(tokens)
    else:
        model = Transformer(sizes)
        model({"source": ops.ones((1, sizes["source_time"]), "int32"), "target": tokens})
    return model


def generate(model, prompt, count):
    """Decode greedily after the start token, with the source ``prompt``: -> (batch, count)."""
    batch = prompt.shape[0]
    x, mask = model.encoded(prompt)
    memory = [layer.cross.remember(x) for layer in model.decoder]

    def further(number, token, tokens, cache):
        token, cache = model.advance(token[:, None], number, cache, memory, mask)
        token = ops.cast(token, "int32")
        return number + 1, token, ops.slice_update(tokens, [0, number], token[:, None]), cache

    token, tokens = ops.full((batch,), START, "int32"), ops.zeros((batch, count), "int32")
    _, _, tokens, _ = ops.while_loop(
        lambda number, *_: number < count,
        further,
        (0, token, tokens, model.empty_cache(batch, count)),
    )
    return tokens
