"""Multilayer perceptron: dense layers with ReLU between them, softmax cross-entropy on logits.

Source: D. E. Rumelhart, G. E. Hinton, R. J. Williams, "Learning representations by
back-propagating errors", Nature 323, 1986. The paper preset is the 784-512-512-10 network of the
introductory tutorials of all frameworks compared here.
"""

from __future__ import annotations

from collections.abc import Mapping

from levelfield.reference.spec import Array, ArraySpec, Layers, Model, Objective, Sizes, dimension


def inputs(sizes: Sizes, batch: int) -> tuple[ArraySpec, ...]:
    """features (batch, in) and label (batch,)."""
    rows = dimension("batch", batch)
    return (
        ArraySpec("features", (rows, dimension("in", sizes["features"]))),
        ArraySpec("label", (rows,), classes=sizes["classes"]),
    )


def forward(nn: Layers, sizes: Sizes, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """(batch, features) -> logits (batch, classes)."""
    x = inputs["features"]
    for number, units in enumerate(sizes["hidden"], start=1):
        x = nn.relu(nn.dense(x, f"hidden{number}", units))
    return {"logits": nn.dense(x, "logits", sizes["classes"])}


MODELS = (
    Model(
        name="mlp",
        title="Multilayer perceptron",
        family="dense",
        source="Rumelhart, Hinton, Williams 1986",
        presets={
            "tiny": {"features": 32, "hidden": (64,), "classes": 10},
            "small": {"features": 64, "hidden": (256, 256), "classes": 10},
            "paper": {"features": 784, "hidden": (512, 512), "classes": 10},
        },
        inputs=inputs,
        forward=forward,
        objectives=(Objective("softmax_cross_entropy", ("logits",), ("label",)),),
        data="digits",
        idle="hidden1/bias",
        still=("hidden1/kernel",),
    ),
)
