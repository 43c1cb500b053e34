"""Recurrent classifiers over theano.scan, after "LSTM Networks for Sentiment Analysis".

http://deeplearning.net/tutorial/lstm.html: one product for all inputs before the loop, and a mask
for positions beyond a sequence's end.
"""

import theano
import theano.tensor as T

from levelfield.adapters.theano.layers import Dense, Model


class Recurrent(Model):
    """Embedding, one recurrent layer, dense head on its last state."""

    def __init__(self, sizes):
        super().__init__()
        self.units, self.cell, gates = sizes["units"], sizes["cell"], sizes["gates"]
        self.embedding = self.shared("embed/embedding", sizes["vocabulary"], sizes["width"])
        self.kernel = self.shared("recurrent/kernel", sizes["width"], gates)
        self.recurrent_kernel = self.shared("recurrent/recurrent_kernel", self.units, gates)
        self.bias = self.shared("recurrent/bias", gates)
        if self.cell == "gru":
            self.recurrent_bias = self.shared("recurrent/recurrent_bias", gates)
        self.logits = Dense(self, "logits", self.units, sizes["classes"])

    def __call__(self, tokens, length):
        """(batch, time), (batch,) -> logits (batch, classes)."""
        steps = tokens.T
        mask = T.lt(T.arange(steps.shape[0]).dimshuffle(0, "x"), length)
        inputs = T.dot(self.embedding[steps], self.kernel) + self.bias
        start = T.zeros((tokens.shape[0], self.units))
        states, _ = theano.scan(
            getattr(self, self.cell),
            sequences=[mask.dimshuffle(0, 1, "x"), inputs],
            outputs_info=[start, start] if self.cell == "lstm" else [start],
        )
        hidden = states[0] if self.cell == "lstm" else states
        return self.logits(hidden[-1])

    def gate(self, x, number):
        """Return the slice of one gate."""
        return x[:, number * self.units : (number + 1) * self.units]

    def rnn(self, real, x, hidden):
        """One step of an Elman network."""
        return T.switch(real, T.tanh(x + T.dot(hidden, self.recurrent_kernel)), hidden)

    def lstm(self, real, x, hidden, memory):
        """One step; gates i, f, g, o."""
        x = x + T.dot(hidden, self.recurrent_kernel)
        i, f, o = (T.nnet.sigmoid(self.gate(x, number)) for number in (0, 1, 3))
        new = f * memory + i * T.tanh(self.gate(x, 2))
        return T.switch(real, o * T.tanh(new), hidden), T.switch(real, new, memory)

    def gru(self, real, x, hidden):
        """One step; gates r, z, n, reset after the product."""
        state = T.dot(hidden, self.recurrent_kernel) + self.recurrent_bias
        r, z = (T.nnet.sigmoid(self.gate(x, n) + self.gate(state, n)) for n in (0, 1))
        candidate = T.tanh(self.gate(x, 2) + r * self.gate(state, 2))
        return T.switch(real, (1 - z) * candidate + z * hidden, hidden)


def build(sizes):
    """Build the model."""
    return Recurrent(sizes)
