"""Recurrent classifiers as a ``keras.Sequential`` model; padding is masked by the embedding.

Follows https://keras.io/guides/working_with_rnns/ and
https://keras.io/guides/understanding_masking_and_padding/
"""

import keras
from keras import layers

LAYERS = {"rnn": layers.SimpleRNN, "lstm": layers.LSTM, "gru": layers.GRU}


def build(sizes):
    """Sizes of the preset -> model: tokens (batch, time) -> logits (batch, classes)."""
    return keras.Sequential(
        [
            keras.Input((sizes["time"],), dtype="int32", name="tokens"),
            layers.Embedding(sizes["vocabulary"], sizes["width"], mask_zero=True, name="embed"),
            LAYERS[sizes["cell"]](sizes["units"], name="recurrent"),
            layers.Dense(sizes["classes"], name="logits"),
        ]
    )
