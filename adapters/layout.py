"""Converts arrays between the axes of a definition and those of a framework."""

import numpy


class Layout:
    """Convert every array of a case between canonical axes and a framework's own, by name.

    ``orders`` maps a tuple of canonical labels to the framework's order of them. Other labels keep
    their order. It serves whole arrays and flattened dimensions in the same way. The rows of the
    first dense kernel after a flattened image thus follow the framework's image layout::

        Layout({
            ("in", "out"): ("out", "in"),
            ("batch", "height", "width", "channel"): ("batch", "channel", "height", "width"),
            ("height", "width", "channel"): ("channel", "height", "width"),
        })

    ``CHANNELS_FIRST`` has the orders of images and their kernels that many frameworks share.

    ``entries`` maps an axis to the framework's order of its entries, such as the gates of a GRU:
    ``{"gru_gate": (1, 0, 2)}``.

    Dimensions have the form ``[[label, [[axis, size], ...]], ...]``. There is more than one axis
    where several were flattened together.
    """

    def __init__(self, orders=None, entries=None):
        self.orders = {tuple(key): tuple(order) for key, order in (orders or {}).items()}
        self.entries = entries or {}

    def to_native(self, values, dimensions):
        """Turn a canonical NumPy array into a contiguous one in the framework's order."""
        for axis, (_, factors) in enumerate(dimensions):
            values = self._regroup(values, axis, factors, inverse=False)
        order = self._order([label for label, _ in dimensions])
        return numpy.ascontiguousarray(numpy.transpose(values, order))

    def to_canonical(self, values, dimensions):
        """Invert ``to_native``."""
        order = self._order([label for label, _ in dimensions])
        values = numpy.transpose(values, numpy.argsort(order))
        for axis, (_, factors) in enumerate(dimensions):
            values = self._regroup(values, axis, factors, inverse=True)
        return numpy.ascontiguousarray(values)

    def _order(self, labels):
        order = self.orders.get(tuple(labels), labels)
        return [list(labels).index(label) for label in order]

    def _regroup(self, values, axis, factors, inverse):
        order = self._order([name for name, _ in factors])
        sizes = [size for _, size in factors]
        for place, (name, _) in enumerate(factors):
            if name in self.entries:
                shape = values.shape
                entries = list(self.entries[name])
                entries = numpy.argsort(entries) if inverse else entries
                values = values.reshape(shape[:axis] + tuple(sizes) + shape[axis + 1 :])
                values = values.take(entries, axis + place).reshape(shape)
        if order == sorted(order):
            return values
        if inverse:
            sizes, order = [sizes[i] for i in order], list(numpy.argsort(order))
        shape = values.shape
        values = values.reshape(shape[:axis] + tuple(sizes) + shape[axis + 1 :])
        moved = list(range(axis)) + [axis + i for i in order]
        moved += list(range(axis + len(sizes), values.ndim))
        return numpy.transpose(values, moved).reshape(shape)


# The orders of a framework whose images have the channels before height and width.
CHANNELS_FIRST = {
    ("height", "width", "in", "out"): ("out", "in", "height", "width"),
    ("batch", "height", "width", "channel"): ("batch", "channel", "height", "width"),
    ("height", "width", "channel"): ("channel", "height", "width"),
}
