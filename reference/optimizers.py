"""The three optimisers, each with one formula for NumPy and JAX arrays.

With gradient g, parameter p and step number t from 1:

* ``sgd``: p <- p - lr g.
* ``momentum`` (Polyak's heavy ball as in Sutskever et al. 2013, equations 1 and 2, with the rate
  outside the velocity): v <- mu v + g; p <- p - lr v. No Nesterov correction, no dampening.
* ``adam`` (Kingma and Ba 2015, algorithm 1): m <- b1 m + (1 - b1) g; v <- b2 v + (1 - b2) g^2;
  p <- p - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + epsilon): epsilon is added after the bias
  correction. No weight decay.

Several frameworks compute Adam in the other form of the same paper, at the end of section 2: the
correction goes into the rate, and "epsilon hat" is added before it. ``EPSILON_HAT`` names that
form, with the epsilon that gives an equal first step. The reference uses it only to measure how far
the two forms differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

AnyArrays = dict[str, Any]

# The rates are small: in ten steps in float32, every model stays on one side of nearly all ties of
# ReLU and pooling. Beyond a tie, correct programs differ
# (levelfield.reference.settled.settled_case).
OPTIMIZERS: Mapping[str, Mapping[str, float]] = {
    "sgd": {"learning_rate": 0.005},
    "momentum": {"learning_rate": 0.001, "momentum": 0.9},
    "adam": {"learning_rate": 1e-3, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8},
}


EPSILON_HAT = "adam with epsilon hat"


def initial_state(optimizer: str, parameters: AnyArrays) -> AnyArrays:
    """Return the state before the first step: zeros of the parameters' shapes, by name."""
    adam = ("mean", "variance")
    slots = {"sgd": (), "momentum": ("velocity",), "adam": adam, EPSILON_HAT: adam}[optimizer]
    state: AnyArrays = {
        slot: {name: value * 0 for name, value in parameters.items()} for slot in slots
    }
    return state


def update(
    optimizer: str, parameters: AnyArrays, gradients: AnyArrays, *, state: AnyArrays, step: Any
) -> tuple[AnyArrays, AnyArrays]:
    """Return parameters and state after step number ``step`` (from 1; may be traced)."""
    constants = OPTIMIZERS["adam" if optimizer == EPSILON_HAT else optimizer]
    rate = constants["learning_rate"]
    if optimizer == "sgd":
        return {name: p - rate * gradients[name] for name, p in parameters.items()}, state
    if optimizer == "momentum":
        velocity = {
            name: constants["momentum"] * v + gradients[name]
            for name, v in state["velocity"].items()
        }
        moved = {name: p - rate * velocity[name] for name, p in parameters.items()}
        return moved, {"velocity": velocity}
    beta1, beta2, epsilon = constants["beta1"], constants["beta2"], constants["epsilon"]
    mean = {n: beta1 * m + (1 - beta1) * gradients[n] for n, m in state["mean"].items()}
    variance = {
        n: beta2 * v + (1 - beta2) * gradients[n] ** 2 for n, v in state["variance"].items()
    }
    mean_scale, variance_scale = 1 / (1 - beta1**step), 1 / (1 - beta2**step)
    if optimizer == EPSILON_HAT:
        epsilon = epsilon * ((1 - beta2) * variance_scale) ** 0.5
    moved = {
        n: p - rate * (mean[n] * mean_scale) / ((variance[n] * variance_scale) ** 0.5 + epsilon)
        for n, p in parameters.items()
    }
    return moved, {"mean": mean, "variance": variance}
