"""Recurrent classifiers on rnn.RNN, rnn.LSTM and rnn.GRU of Gluon.

https://mxnet.apache.org/versions/1.9.1/api/python/docs/api/gluon/rnn/index.html
"""

from mxnet.gluon import nn, rnn


class Recurrent(nn.HybridBlock):
    """Embedding, one recurrent layer, dense head on the state after the last real token."""

    def __init__(self, sizes):
        super().__init__()
        self.embed = nn.Embedding(sizes["vocabulary"], sizes["width"])
        units, width = sizes["units"], sizes["width"]
        if sizes["cell"] == "rnn":
            self.recurrent = rnn.RNN(units, activation="tanh", input_size=width)
        else:
            layer = {"lstm": rnn.LSTM, "gru": rnn.GRU}[sizes["cell"]]
            self.recurrent = layer(units, input_size=width)
        self.logits = nn.Dense(sizes["classes"], in_units=units)
        if sizes["cell"] != "gru":
            # The layer adds both biases. Trained together, they would move twice as fast as one.
            self.recurrent.l0_h2h_bias.grad_req = "null"

    def hybrid_forward(self, F, tokens, length):
        """(batch, time), (batch,) -> logits (batch, classes)."""
        # The layer supports lengths only with cuDNN.
        states = self.recurrent(self.embed(tokens).swapaxes(0, 1))
        last = F.SequenceLast(states, length.astype("float32"), use_sequence_length=True)
        return self.logits(last)


def build(sizes):
    """Build the model."""
    return Recurrent(sizes)
