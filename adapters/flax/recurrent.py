"""Recurrent classifiers on ``nnx.RNN`` with its cells.

Follows https://flax.readthedocs.io/en/latest/api_reference/flax.nnx/nn/recurrent.html
"""

from flax import nnx


def gru_cell(in_features, units, *, rngs):
    """A GRU cell with the second bias of cuDNN's form, which ``nnx.GRUCell`` leaves out."""
    cell = nnx.GRUCell(in_features, units, rngs=rngs)
    cell.dense_h = nnx.Linear(units, 3 * units, rngs=rngs)
    return cell


CELLS = {"rnn": nnx.SimpleCell, "lstm": nnx.OptimizedLSTMCell, "gru": gru_cell}


class Recurrent(nnx.Module):
    """Embedding, one recurrent layer, dense head on the state after the last token."""

    def __init__(self, sizes, *, rngs):
        self.embed = nnx.Embed(sizes["vocabulary"], sizes["width"], rngs=rngs)
        cell = CELLS[sizes["cell"]](sizes["width"], sizes["units"], rngs=rngs)
        self.recurrent = nnx.RNN(cell, return_carry=True)
        self.logits = nnx.Linear(sizes["units"], sizes["classes"], rngs=rngs)

    def __call__(self, tokens, length):
        """(batch, time), (batch,) -> logits (batch, classes)."""
        carry, _ = self.recurrent(self.embed(tokens), seq_lengths=length)
        hidden = carry[1] if isinstance(carry, tuple) else carry  # an LSTM's is (memory, hidden)
        return self.logits(hidden)


def build(sizes):
    """Sizes of the preset -> the module."""
    return Recurrent(sizes, rngs=nnx.Rngs(0))
