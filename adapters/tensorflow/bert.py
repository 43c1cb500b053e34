"""BERT as a tf.Module, after "Neural machine translation with a Transformer".

https://www.tensorflow.org/text/tutorials/transformer. The head gathers the masked positions, as in
https://www.tensorflow.org/tfmodels/nlp/fine_tune_bert
"""

import tensorflow as tf

from levelfield.adapters.tensorflow.layers import Dense, Embedding, LayerNorm
from levelfield.adapters.tensorflow.transformer_layers import SelfAttention

EPSILON = 1e-12


class Layer(tf.Module):
    """Attention and a hidden layer; a layer norm follows each residual sum."""

    def __init__(self, sizes):
        super().__init__()
        width, hidden = sizes["width"], sizes["hidden"]
        self.attention = SelfAttention(width, sizes["heads"])
        self.attention_norm = LayerNorm(width, epsilon=EPSILON)
        self.hidden = Dense(width, hidden, activation=tf.nn.gelu)
        self.out = Dense(hidden, width)
        self.norm = LayerNorm(width, epsilon=EPSILON)

    def __call__(self, x, mask):
        """(batch, time, width) -> (batch, time, width)."""
        x = self.attention_norm(x + self.attention(x, mask))
        return self.norm(x + self.out(self.hidden(x)))


class BERT(tf.Module):
    """Encoder, pooler and masked-language-model head."""

    def __init__(self, sizes):
        super().__init__()
        width = sizes["width"]
        self.token_embed = Embedding(sizes["vocabulary"], width)
        self.segment_embed = Embedding(2, width)
        self.position_embed = Embedding(sizes["positions"], width)
        self.embeddings_norm = LayerNorm(width, epsilon=EPSILON)
        self.layers = [Layer(sizes) for _ in range(sizes["layers"])]
        self.pooler = Dense(width, width, activation=tf.tanh)
        self.transform = Dense(width, width, activation=tf.nn.gelu)
        self.transform_norm = LayerNorm(width, epsilon=EPSILON)
        self.logits = Bias(sizes["vocabulary"])

    def __call__(self, tokens, segments, mask, positions):
        """-> pooled (batch, width), logits (batch, count, vocabulary) at the positions."""
        x = self.token_embed(tokens) + self.segment_embed(segments)
        x = self.embeddings_norm(x + self.position_embed.embedding[: tokens.shape[1]])
        keys = tf.cast(mask, tf.bool)[:, tf.newaxis, tf.newaxis]
        for layer in self.layers:
            x = layer(x, keys)
        pooled = self.pooler(x[:, 0])
        x = tf.gather(x, positions, batch_dims=1)
        x = self.transform_norm(self.transform(x))
        logits = self.logits(tf.einsum("btw,vw->btv", x, self.token_embed.embedding))
        return {"pooled": pooled, "logits": logits}


class Bias(tf.Module):
    """The bias of the tied head."""

    def __init__(self, units):
        super().__init__()
        self.bias = tf.Variable(tf.zeros([units]))

    def __call__(self, x):
        """(..., units) -> (..., units)."""
        return x + self.bias


def build(sizes):
    """Build the model."""
    return BERT(sizes)
