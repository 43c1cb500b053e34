"""Two towers as a tf.Module; the softmax is over the items of the batch.

After the retrieval task of TensorFlow Recommenders, whose scores are the product of both
embeddings, in TensorFlow's core (2026-11):
https://www.tensorflow.org/recommenders/examples/basic_retrieval
https://www.tensorflow.org/api_docs/python/tf/math/l2_normalize
"""

import tensorflow as tf

from levelfield.adapters.tensorflow.layers import Dense


def tower(features, widths):
    """Make the dense layers of a tower; the last one has no activation."""
    widths = [features, *widths]
    last = len(widths) - 2
    return [
        Dense(widths[i], widths[i + 1], activation=tf.identity if i == last else tf.nn.relu)
        for i in range(last + 1)
    ]


class TwoTower(tf.Module):
    """Embeddings of users and items, and the scores of all their pairs."""

    def __init__(self, sizes):
        super().__init__()
        self.user = tower(sizes["user_features"], sizes["tower"])
        self.item = tower(sizes["item_features"], sizes["tower"])
        self.temperature = sizes["temperature"]

    def __call__(self, user, item):
        """(batch, user_features), (batch, item_features) -> logits (batch, batch)."""
        for layer in self.user:
            user = layer(user)
        for layer in self.item:
            item = layer(item)
        user, item = tf.math.l2_normalize(user, axis=-1), tf.math.l2_normalize(item, axis=-1)
        return tf.matmul(user, item, transpose_b=True) / self.temperature


def build(sizes):
    """Build the model."""
    return TwoTower(sizes)
