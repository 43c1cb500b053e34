"""Recurrent classifiers as tf.Modules with a loop that tf.function turns into a graph's.

After "Better performance with tf.function" (its dynamic_rnn with tf.TensorArray):
https://www.tensorflow.org/guide/function#accumulating_values_in_a_loop
"""

import tensorflow as tf

from levelfield.adapters.tensorflow.layers import Dense, Embedding


class RNNLayer(tf.Module):
    """tanh of both products."""

    def __init__(self, in_features, units, gates):
        super().__init__()
        self.kernel = tf.Variable(tf.random.normal([in_features, gates]))
        self.recurrent_kernel = tf.Variable(tf.random.normal([units, gates]))
        self.bias = tf.Variable(tf.zeros([gates]))
        self.units = units

    def initial(self, batch):
        """Zeros, (batch, units)."""
        return (tf.zeros([batch, self.units]),)

    def step(self, inputs, state):
        """The next state; ``inputs`` are the products of the inputs for the gates."""
        return (tf.tanh(inputs + tf.matmul(state[0], self.recurrent_kernel)),)

    def __call__(self, x):
        """(batch, time, in_features) -> hidden states (batch, time, units)."""
        inputs = tf.transpose(tf.tensordot(x, self.kernel, axes=1) + self.bias, [1, 0, 2])
        time, batch, _ = inputs.shape
        states = tf.TensorArray(tf.float32, size=time, element_shape=[batch, self.units])
        state = self.initial(batch)
        for i in tf.range(time):
            state = self.step(inputs[i], state)
            states = states.write(i, state[0])
        return tf.transpose(states.stack(), [1, 0, 2])


class LSTMLayer(RNNLayer):
    """Gates i, f, g, o."""

    def initial(self, batch):
        """Hidden state and memory."""
        return tf.zeros([batch, self.units]), tf.zeros([batch, self.units])

    def step(self, inputs, state):
        """The next hidden state and memory."""
        hidden, memory = state
        i, f, g, o = tf.split(inputs + tf.matmul(hidden, self.recurrent_kernel), 4, axis=-1)
        memory = tf.sigmoid(f) * memory + tf.sigmoid(i) * tf.tanh(g)
        return tf.sigmoid(o) * tf.tanh(memory), memory


class GRULayer(RNNLayer):
    """Gates r, z, n; the reset follows the product."""

    def __init__(self, in_features, units, gates):
        super().__init__(in_features, units, gates)
        self.recurrent_bias = tf.Variable(tf.zeros([gates]))

    def step(self, inputs, state):
        """The next state."""
        (hidden,) = state
        recurrent = tf.matmul(hidden, self.recurrent_kernel) + self.recurrent_bias
        r, z, n = tf.split(inputs, 3, axis=-1)
        r_hidden, z_hidden, n_hidden = tf.split(recurrent, 3, axis=-1)
        update = tf.sigmoid(z + z_hidden)
        candidate = tf.tanh(n + tf.sigmoid(r + r_hidden) * n_hidden)
        return ((1 - update) * candidate + update * hidden,)


LAYERS = {"rnn": RNNLayer, "lstm": LSTMLayer, "gru": GRULayer}


class Recurrent(tf.Module):
    """Embedding, one recurrent layer, dense head on the state after the last token."""

    def __init__(self, sizes):
        super().__init__()
        layer = LAYERS[sizes["cell"]]
        self.embed = Embedding(sizes["vocabulary"], sizes["width"])
        self.recurrent = layer(sizes["width"], sizes["units"], sizes["gates"])
        self.logits = Dense(sizes["units"], sizes["classes"])

    def __call__(self, tokens, length):
        """(batch, time), (batch,) -> logits (batch, classes)."""
        states = self.recurrent(self.embed(tokens))
        return self.logits(tf.gather(states, length - 1, axis=1, batch_dims=1))


def build(sizes):
    """Build the model."""
    return Recurrent(sizes)
