"""Neural matrix factorisation as a tf.Module on tf.nn.embedding_lookup.

https://www.tensorflow.org/api_docs/python/tf/nn/embedding_lookup
"""

import tensorflow as tf

from levelfield.adapters.tensorflow.layers import Dense, Embedding


class NeuMF(tf.Module):
    """A product of factors next to a tower of dense layers."""

    def __init__(self, sizes):
        super().__init__()
        tower, factors = sizes["tower"], sizes["factors"]
        self.factor_user = Embedding(sizes["users"], factors)
        self.factor_item = Embedding(sizes["items"], factors)
        self.tower_user = Embedding(sizes["users"], sizes["tower_embedding"])
        self.tower_item = Embedding(sizes["items"], sizes["tower_embedding"])
        self.hidden = [
            Dense(tower[i], tower[i + 1], activation=tf.nn.relu) for i in range(len(tower) - 1)
        ]
        self.logits = Dense(sizes["joined"], 1)

    def __call__(self, user, item):
        """(batch,), (batch,) -> logits (batch, 1)."""
        factors = self.factor_user(user) * self.factor_item(item)
        x = tf.concat([self.tower_user(user), self.tower_item(item)], axis=-1)
        for layer in self.hidden:
            x = layer(x)
        return self.logits(tf.concat([factors, x], axis=-1))


def build(sizes):
    """Build the model."""
    return NeuMF(sizes)
