"""Recurrent classifiers as ``Sequential`` models, after examples/imdb_lstm.py.

https://github.com/keras-team/keras/blob/2.3.1/examples/imdb_lstm.py
The embedding masks what lies beyond a sequence's end.
"""

from keras.layers import GRU, LSTM, Dense, Embedding, InputLayer, SimpleRNN
from keras.models import Sequential


def build(sizes):
    """Tokens (batch, time) -> logits (batch, classes); ``unroll`` writes out every step."""
    options = {"unroll": sizes["unroll"], "name": "recurrent"}
    layer = {
        "rnn": lambda: SimpleRNN(sizes["units"], **options),
        "lstm": lambda: LSTM(sizes["units"], **options),
        "gru": lambda: GRU(sizes["units"], reset_after=True, **options),
    }[sizes["cell"]]()
    return Sequential(
        [
            InputLayer((sizes["time"],)),
            Embedding(sizes["vocabulary"], sizes["width"], mask_zero=True, name="embed"),
            layer,
            Dense(sizes["classes"], name="logits"),
        ]
    )
