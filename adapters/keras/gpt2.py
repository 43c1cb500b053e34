"""GPT-2 as a subclassed Keras model that decodes with a cache of fixed shape.

Follows https://keras.io/guides/making_new_layers_and_models_via_subclassing/ and the language
models of Keras, https://keras.io/keras_hub/api/modeling_layers/cached_multi_head_attention/ and
https://keras.io/keras_hub/api/samplers/ (a ``keras.ops.while_loop`` over a padded prompt).
"""

import keras
from keras import layers, ops

EPSILON = 1e-5


class CachedAttention(layers.MultiHeadAttention):
    """Causal self-attention, optionally over a cache, by the layer's own projections."""

    def advance(self, x, position, cache):
        """Process new positions; also return the cache with their keys and values."""
        query, key, value = self._query_dense(x), self._key_dense(x), self._value_dense(x)
        keys = ops.slice_update(cache[0], [0, position, 0, 0], key)
        values = ops.slice_update(cache[1], [0, position, 0, 0], value)
        times = ops.arange(keys.shape[1])
        seen = times[None] <= (position + ops.arange(x.shape[1]))[:, None]
        out, _ = self._compute_attention(query, keys, values, attention_mask=seen[None])
        return self._output_dense(out), (keys, values)


class Block(layers.Layer):
    """Attention and a hidden layer, each after a layer norm."""

    def __init__(self, sizes, **options):
        super().__init__(**options)
        self.attention_norm = layers.LayerNormalization(epsilon=EPSILON, name="attention_norm")
        self.attention = CachedAttention(sizes["heads"], sizes["head_width"], name="attention")
        self.norm = layers.LayerNormalization(epsilon=EPSILON, name="norm")
        self.hidden = layers.Dense(sizes["hidden"], activation=gelu, name="hidden")
        self.out = layers.Dense(sizes["width"], name="out")

    def call(self, x):
        """(batch, time, width) -> (batch, time, width)."""
        y = self.attention_norm(x)
        x = x + self.attention(y, y, use_causal_mask=True)
        return x + self.out(self.hidden(self.norm(x)))

    def advance(self, x, position, cache):
        """Process new positions over the cache."""
        out, cache = self.attention.advance(self.attention_norm(x), position, cache)
        x = x + out
        return x + self.out(self.hidden(self.norm(x))), cache


def gelu(x):
    """GELU by the tanh approximation."""
    return ops.gelu(x, approximate=True)


class GPT2(keras.Model):
    """Decoder-only Transformer with tied head."""

    def __init__(self, sizes):
        super().__init__()
        width, self.heads, self.head_width = sizes["width"], sizes["heads"], sizes["head_width"]
        self.token_embed = layers.ReversibleEmbedding(
            sizes["vocabulary"], width, name="token_embed"
        )
        self.position_embed = layers.Embedding(sizes["positions"], width, name="position_embed")
        self.blocks = [Block(sizes, name=f"layers{n}") for n in range(1, sizes["layers"] + 1)]
        self.norm = layers.LayerNormalization(epsilon=EPSILON, name="norm")

    def call(self, tokens):
        """(batch, time) -> logits (batch, time, vocabulary)."""
        x = self.token_embed(tokens) + self.position_embed(ops.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.token_embed(self.norm(x), reverse=True)

    def empty_cache(self, batch, time):
        """Keys and values per layer, (batch, time, heads, width / heads) each."""
        zeros = ops.zeros((batch, time, self.heads, self.head_width))
        return [(zeros, zeros) for _ in self.blocks]

    def advance(self, tokens, position, cache):
        """(batch, n) tokens from ``position`` on -> the token after the last, and the cache."""
        x = self.token_embed(tokens) + self.position_embed(position + ops.arange(tokens.shape[1]))
        kept = []
        for block, old in zip(self.blocks, cache, strict=True):
            x, new = block.advance(x, position, old)
            kept.append(new)
        logits = self.token_embed(self.norm(x[:, -1]), reverse=True)
        return ops.argmax(logits, axis=-1), kept


def build(sizes):
    """Sizes of the preset -> the model: tokens -> logits."""
    model = GPT2(sizes)
    model(ops.zeros((1, sizes["time"]), "int32"))
    return model


def generate(model, prompt, count):
    """Decode greedily: (batch, time) -> (batch, count)."""
    batch, length = prompt.shape
    token, cache = model.advance(prompt, 0, model.empty_cache(batch, length + count))
    token = ops.cast(token, "int32")
    tokens = ops.slice_update(ops.zeros((batch, count), "int32"), [0, 0], token[:, None])

    def further(number, token, tokens, cache):
        token, cache = model.advance(token[:, None], length + number - 1, cache)
        token = ops.cast(token, "int32")
        return number + 1, token, ops.slice_update(tokens, [0, number], token[:, None]), cache

    _, _, tokens, _ = ops.while_loop(
        lambda number, *_: number < count, further, (1, token, tokens, cache)
    )
    return tokens
