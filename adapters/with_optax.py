"""Losses and optimisers of adapters whose documentation takes them from optax: JAX and Flax.

https://optax.readthedocs.io/en/latest/getting_started.html
"""

import jax.numpy as jnp
import optax


def softmax_cross_entropy(logits, labels):
    """Softmax cross-entropy, averaged over the batch."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def in_batch_softmax(logits):
    """Softmax cross-entropy; the label of each row is its own number."""
    return softmax_cross_entropy(logits, jnp.arange(len(logits)))


def binary_cross_entropy(logits, labels):
    """Binary cross-entropy, averaged over the batch."""
    return optax.sigmoid_binary_cross_entropy(logits, labels).mean()


def evidence_lower_bound(logits, mean, log_variance, target):
    """The negative bound, averaged over the batch; optax has no divergence of normals."""
    reconstruction = optax.sigmoid_binary_cross_entropy(logits, target).sum(-1)
    divergence = 0.5 * (mean**2 + jnp.exp(log_variance) - 1 - log_variance).sum(-1)
    return (reconstruction + divergence).mean()


LOSSES = {
    "softmax_cross_entropy": softmax_cross_entropy,
    "in_batch_softmax": in_batch_softmax,
    "binary_cross_entropy": binary_cross_entropy,
    "evidence_lower_bound": evidence_lower_bound,
}

OPTIMIZERS = {
    "sgd": lambda o: optax.sgd(o["learning_rate"]),
    "momentum": lambda o: optax.sgd(o["learning_rate"], momentum=o["momentum"]),
    "adam": lambda o: optax.adam(o["learning_rate"], o["beta1"], o["beta2"], eps=o["epsilon"]),
}
