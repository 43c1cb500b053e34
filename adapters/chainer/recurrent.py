"""Recurrent classifiers on NStepRNNTanh, NStepLSTM and NStepGRU, after Chainer's text example.

https://github.com/chainer/chainer/blob/v7.8.1/examples/text_classification/nets.py
"""

import chainer
from chainer import functions as F
from chainer import links as L

LAYERS = {"rnn": L.NStepRNNTanh, "lstm": L.NStepLSTM, "gru": L.NStepGRU}


class Recurrent(chainer.Chain):
    """Embedding, one recurrent layer, dense head on its last state."""

    def __init__(self, sizes):
        super().__init__()
        with self.init_scope():
            self.embed = L.EmbedID(sizes["vocabulary"], sizes["width"])
            layer = LAYERS[sizes["cell"]]
            self.recurrent = layer(1, sizes["width"], sizes["units"], dropout=0)
            self.logits = L.Linear(sizes["units"], sizes["classes"])

    def forward(self, tokens, length):
        """(batch, time), (batch,) -> logits (batch, classes)."""
        ends = length.cumsum()[:-1]
        # All tokens are embedded together; the recurrent links expect separate sequences.
        together = [row[:count] for row, count in zip(tokens, length, strict=True)]
        embedded = self.embed(self.xp.concatenate(together))
        sequences = F.split_axis(embedded, ends, axis=0, force_tuple=True)
        start = (None, None) if isinstance(self.recurrent, L.NStepLSTM) else (None,)
        states = self.recurrent(*start, sequences)
        return self.logits(states[0][-1])


def build(sizes):
    """Build the model."""
    return Recurrent(sizes)
