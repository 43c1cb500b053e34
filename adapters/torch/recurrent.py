"""Recurrent classifiers on nn.RNN, nn.LSTM and nn.GRU, with packed sequences.

https://docs.pytorch.org/docs/stable/generated/torch.nn.LSTM.html
https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.rnn.pack_padded_sequence.html
"""

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

LAYERS = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


class Recurrent(nn.Module):
    """Embedding, one recurrent layer, dense head on its last state."""

    def __init__(self, sizes):
        super().__init__()
        self.embed = nn.Embedding(sizes["vocabulary"], sizes["width"])
        layer = LAYERS[sizes["cell"]]
        self.recurrent = layer(sizes["width"], sizes["units"], batch_first=True)
        self.logits = nn.Linear(sizes["units"], sizes["classes"])
        if sizes["cell"] != "gru":
            # Both biases are summed: trained together they would move twice as fast as one.
            nn.init.zeros_(self.recurrent.bias_hh_l0).requires_grad_(False)

    def forward(self, tokens, length):
        """(batch, time), (batch,) -> logits (batch, classes)."""
        packed = pack_padded_sequence(
            self.embed(tokens), length.cpu(), batch_first=True, enforce_sorted=False
        )
        _, state = self.recurrent(packed)
        hidden = state[0] if isinstance(self.recurrent, nn.LSTM) else state
        return self.logits(torch.squeeze(hidden, 0))


def build(sizes):
    """The model."""
    return Recurrent(sizes)
