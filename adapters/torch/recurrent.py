"""Recurrent classifiers on nn.RNN, nn.LSTM and nn.GRU, with packed or with padded sequences.

``build`` packs sequences of different lengths, as torch's documentation teaches.
https://docs.pytorch.org/docs/stable/generated/torch.nn.LSTM.html
https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.rnn.pack_padded_sequence.html
``build_tuned`` leaves them padded: on the CPU only padded input reaches oneDNN's LSTM.
https://github.com/pytorch/pytorch/pull/91158
https://github.com/pytorch/pytorch/issues/149194
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
            # The layer adds both biases. Trained together, they would move twice as fast as one.
            nn.init.zeros_(self.recurrent.bias_hh_l0).requires_grad_(False)

    def forward(self, tokens, length):
        """(batch, time), (batch,) -> logits (batch, classes)."""
        packed = pack_padded_sequence(
            self.embed(tokens), length.cpu(), batch_first=True, enforce_sorted=False
        )
        _, state = self.recurrent(packed)
        hidden = state[0] if isinstance(self.recurrent, nn.LSTM) else state
        return self.logits(torch.squeeze(hidden, 0))


class PaddedRecurrent(Recurrent):
    """The same layers on padded sequences; the head reads the output of the last real token.

    The layer also computes the padding. Its outputs are not read, so its gradients are zero.
    """

    def forward(self, tokens, length):
        """(batch, time), (batch,) -> logits (batch, classes)."""
        outputs, _ = self.recurrent(self.embed(tokens))
        rows = torch.arange(len(length), device=length.device)
        return self.logits(outputs[rows, length - 1])


def build(sizes):
    """The model with packed sequences."""
    return Recurrent(sizes)


def build_tuned(sizes):
    """The model with padded sequences."""
    return PaddedRecurrent(sizes)
