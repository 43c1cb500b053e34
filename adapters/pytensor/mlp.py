"""Multilayer perceptron over shared variables, as in PyTensor's tutorial "A Real Example".

https://pytensor.readthedocs.io/en/latest/tutorial/examples.html
"""

from levelfield.adapters.pytensor.layers import Dense, Model, relu


class MLP(Model):
    """Dense layers with ReLU between them."""

    def __init__(self, sizes):
        super().__init__()
        widths = [sizes["features"], *sizes["hidden"]]
        self.hidden = [
            Dense(self, f"hidden{i + 1}", widths[i], widths[i + 1]) for i in range(len(widths) - 1)
        ]
        self.logits = Dense(self, "logits", widths[-1], sizes["classes"])

    def __call__(self, features):
        """(batch, features) -> logits (batch, classes)."""
        x = features
        for layer in self.hidden:
            x = relu(layer(x))
        return self.logits(x)


def build(sizes):
    """Build the model."""
    return MLP(sizes)
