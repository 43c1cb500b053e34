"""The work that the adapters of Keras 2 and Keras 3 share: optimisers, biases, loops over batches.

The fit modes give a whole slice of steps to one ``fit`` or ``predict``. For Python 3.6 and later.
"""

import numpy as np

from levelfield.adapters.base import Adapter, epsilon_hat

BOTH_BIASES = ("recurrent/bias", "recurrent/recurrent_bias")  # a GRU has one variable of two rows


def make_optimizer(keras, constants):
    """Make an optimiser of keras.optimizers. Keras documents Adam's epsilon as "epsilon hat".

    https://keras.io/api/optimizers/adam/
    """
    rate = constants["learning_rate"]
    if constants["name"] == "adam":
        beta1, beta2 = constants["beta1"], constants["beta2"]
        epsilon = epsilon_hat(constants)
        return keras.optimizers.Adam(rate, beta_1=beta1, beta_2=beta2, epsilon=epsilon)
    return keras.optimizers.SGD(rate, momentum=constants.get("momentum", 0.0))


def mapped(function, *trees):
    """Call a function with the arrays that have one place in all trees (dicts and tuples)."""
    if isinstance(trees[0], dict):
        return {key: mapped(function, *(tree[key] for tree in trees)) for key in trees[0]}
    if isinstance(trees[0], tuple):
        return tuple(mapped(function, *parts) for parts in zip(*trees))
    return function(*trees)


class OnKeras(Adapter):
    """An adapter of a compiled Keras model.

    ``load`` sets ``model``, ``batches`` (inputs and targets of each input set, as Keras expects
    them) and ``tiles`` to 0. ``configure`` sets ``fits``: whether the mode's loop is ``fit``.
    ``value_of(name)`` and ``set_value(name, value)`` read and write the variable of an array.
    """

    def part(self, name, value):
        """Return an array's part of its variable: a row of a GRU's two biases, else the whole."""
        row = self._row(name)
        return value if row is None else value[row]

    def assign(self, name, value):
        """Set an array, which has Keras' order of axes. Timed as a part of ``load``."""
        row = self._row(name)
        if row is not None:
            both = np.array(self.value_of(name))
            both[row] = value
            value = both
        self.set_value(name, value)

    def _row(self, name):
        if name in BOTH_BIASES and BOTH_BIASES[1] in self.case.parameters:
            return BOTH_BIASES.index(name)
        return None

    def next_batches(self, count=1):
        """Return inputs and targets of the next ``count`` input sets, one after the other."""
        first, sets = self.cursor, len(self.batches)
        self.cursor = (first + count) % sets
        if count == 1:
            return self.batches[first]
        if self.tiles < first + count:
            # This is enough for any cursor. The slice before the timed one has the same count,
            # so that the timed slice only takes views.
            self.tiles = count + sets - 1
            tiles = [self.batches[number % sets] for number in range(self.tiles)]
            self.tiled = mapped(lambda *arrays: np.concatenate(arrays), *tiles)
        rows = slice(first * self.case.batch, (first + count) * self.case.batch)
        return mapped(lambda array: array[rows], self.tiled)

    def infer(self):
        """Call ``predict_on_batch``, in the fit modes ``predict`` over one batch -> NumPy."""
        if self.fits:
            return self.repeat(self.infer, 1)
        x, _ = self.next_batches()
        return self.case.named_outputs(self.model.predict_on_batch(x))

    def repeat(self, step, count):
        """In the fit modes, call ``fit`` (``predict``) once over the next ``count`` batches.

        The handle then holds the mean of their losses (the outputs of the last batch).
        """
        if not self.fits:
            return super().repeat(step, count)
        x, y = self.next_batches(count)
        batch = self.case.batch
        if step == self.infer:
            outputs = self.model.predict(x, batch_size=batch, verbose=0)
            return self.case.named_outputs(mapped(lambda array: array[-batch:], outputs))
        settings = {"batch_size": batch, "epochs": 1, "shuffle": False, "verbose": 0}
        return {"loss": self.model.fit(x, y, **settings).history["loss"][0]}
