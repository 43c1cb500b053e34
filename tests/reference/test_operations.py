"""Operations of every model against closed forms of its sizes, derived by hand.

A closed form counts the multiply-adds of one example. Only matrix products and convolutions count
(reference.trace): a bias, a norm, an activation and a look-up in a table cost nothing.

* dense: in * out, for each row;
* convolution: out_height * out_width * window^2 * in * out, since each output sums over a window;
* transposed convolution: in_height * in_width * window^2 * in * out, since each input is added to
  a window of outputs (V. Dumoulin, F. Visin, "A guide to convolution arithmetic for deep
  learning", 2016, section 4);
* attention: 2 * time^2 * width for the products with keys and with values, for all heads together,
  and 4 * time * width^2 for the four dense layers (A. Vaswani et al., "Attention is all you need",
  NIPS 2017, section 3.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import pytest

import reference
from reference.spec import Sizes

MODELS = tuple(reference.definitions())
PRESETS = ("tiny", "small", "paper")
BATCH = 3


class Count(NamedTuple):
    """Multiply-adds of one example: of all layers, and of those that read the model's inputs."""

    total: int
    first: int = 0


def dense(widths: Sequence[int]) -> int:
    """Layers one after the other."""
    return sum(a * b for a, b in pairwise(widths))


def half(size: int) -> int:
    """A side after stride 2 with padding window // 2: half of it, rounded up."""
    return (size + 1) // 2


def mlp(sizes: Sizes) -> Count:
    widths = [sizes["features"], *sizes["hidden"], sizes["classes"]]
    return Count(dense(widths), first=widths[0] * widths[1])


def lenet(sizes: Sizes) -> Count:
    """LeCun et al. 1998, figure 2: 5x5 windows; padding keeps the first side, pools halve."""
    height, width = sizes["height"], sizes["width"]
    channels, (one, two) = sizes["channels"], sizes["filters"]
    conv1 = height * width * 25 * channels * one
    rows, columns = height // 2 - 4, width // 2 - 4  # a window of 5 without padding takes 4
    conv2 = rows * columns * 25 * one * two
    flat = (rows // 2) * (columns // 2) * two
    return Count(conv1 + conv2 + dense([flat, *sizes["hidden"], sizes["classes"]]), first=conv1)


def resnet(sizes: Sizes) -> Count:
    """He et al. 2016, table 1: a 7x7 stem and a pool halve the side, later stages halve it again.

    A basic block has two 3x3 kernels. A bottleneck has 1x1, 3x3 and 1x1; its stride is on the 3x3,
    so that the first 1x1 kernel sees the larger image. Where the shape changes, a 1x1 kernel
    projects the shortcut.
    """
    width, rows, columns = sizes["width0"], half(sizes["height"]), half(sizes["width"])
    stem = rows * columns * 49 * sizes["channels"] * width
    total, before, area = stem, width, half(rows) * half(columns)
    rows, columns = half(rows), half(columns)
    for stage, blocks in enumerate(sizes["blocks"]):
        inner = width * 2**stage
        outer = 4 * inner if sizes["block"] == "bottleneck" else inner
        for block in range(blocks):
            entered = area
            if stage > 0 and block == 0:
                rows, columns = half(rows), half(columns)
                area = rows * columns
            if sizes["block"] == "bottleneck":
                total += entered * before * inner + area * (9 * inner**2 + inner * outer)
            else:
                total += area * (9 * before * inner + 9 * inner**2)
            if (stage > 0 and block == 0) or before != outer:
                total += area * before * outer
            before = outer
    return Count(total + before * sizes["classes"], first=stem)


def recurrent(sizes: Sizes) -> Count:
    """At each time step every gate is a dense layer of the token's row and of the last state.

    Gates: Elman 1 (the state itself), LSTM 4 (Hochreiter and Schmidhuber 1997 with Gers 2000), GRU
    3 (Cho et al. 2014). Steps beyond a sequence's length count too.
    """
    gates = {"rnn": 1, "lstm": 4, "gru": 3}[sizes["cell"]]
    width, units = sizes["width"], sizes["units"]
    step = gates * units * (width + units)
    return Count(sizes["time"] * step + units * sizes["classes"])


def vae(sizes: Sizes) -> Count:
    """Kingma and Welling 2014, appendix C: two heads of the encoder, mean and log variance."""
    features, hidden, latent = sizes["features"], sizes["hidden"], sizes["latent"]
    encoder = features * hidden + 2 * hidden * latent
    return Count(encoder + latent * hidden + hidden * features, first=features * hidden)


def neumf(sizes: Sizes) -> Count:
    """He et al. 2017, figure 3: the tower, and one output of its end next to the factors.

    The element-wise product of the factors is no matrix product.
    """
    tower = sizes["tower"]
    return Count(dense(tower) + sizes["factors"] + tower[-1])


def dcgan(sizes: Sizes) -> Count:
    """Radford et al. 2016, figure 1: the generator alone, which doubles 4x4 until the image.

    The noise becomes 4x4; every further transposed convolution, 4x4 too, halves the channels.
    """
    doublings = sizes["doublings"]
    widths = [sizes["filters"] * 2**power for power in reversed(range(doublings))]
    noise = 16 * sizes["latent"] * widths[0]
    layers = enumerate(pairwise([*widths, sizes["channels"]]))
    return Count(noise + sum((4 * 2**n) ** 2 * 16 * a * b for n, (a, b) in layers), first=noise)


def transformer_layer(time: int, width: int) -> int:
    """Attention, and a hidden layer of four times the width."""
    attention = 4 * time * width**2 + 2 * time**2 * width
    return attention + 2 * time * width * 4 * width


def bert(sizes: Sizes) -> Count:
    """Devlin et al. 2019: the pooler reads one position, the head the masked positions alone."""
    time, width, masked = sizes["time"], sizes["width"], sizes["masked"]
    head = masked * (width**2 + width * sizes["vocabulary"])
    return Count(sizes["layers"] * transformer_layer(time, width) + width**2 + head)


def gpt2(sizes: Sizes) -> Count:
    """Radford et al. 2019: the tied head gives logits at every position.

    Attention counts whole squares, the half that the causal mask hides included.
    """
    time, width = sizes["time"], sizes["width"]
    head = time * width * sizes["vocabulary"]
    return Count(sizes["layers"] * transformer_layer(time, width) + head)


CLOSED_FORMS = {
    "mlp": mlp,
    "lenet5": lenet,
    "resnet18": resnet,
    "resnet50": resnet,
    "rnn": recurrent,
    "lstm": recurrent,
    "gru": recurrent,
    "vae": vae,
    "neumf": neumf,
    "dcgan": dcgan,
    "bert": bert,
    "gpt2": gpt2,
}


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", MODELS)
def test_operations_of_inference_follow_the_closed_form(name: str, preset: str) -> None:
    model = reference.get(name)
    count = CLOSED_FORMS[name](model.sizes(preset))
    summary = reference.summarize(model, preset, BATCH)
    assert summary.inference_operations == BATCH * 2 * count.total


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(
    "name", [name for name in MODELS if len(reference.get(name).objectives) == 1]
)
def test_operations_of_training_count_the_gradient_of_each_factor(name: str, preset: str) -> None:
    """The backward pass of a product is one product for the gradient of each factor.

    Training needs no gradient of the model's inputs (Griewank and Walther 2008, section 3.2).
    """
    model = reference.get(name)
    count = CLOSED_FORMS[name](model.sizes(preset))
    summary = reference.summarize(model, preset, BATCH)
    assert summary.training_operations == BATCH * 2 * (3 * count.total - count.first)


@pytest.mark.parametrize(
    ("name", "published"),
    [
        # Billions of multiply-adds, in torchvision's documentation of its models (called GFLOPS).
        ("resnet18", 1.81),
        ("resnet50", 4.09),
    ],
)
def test_operations_are_the_published_ones(name: str, published: float) -> None:
    operations = reference.summarize(reference.get(name), "paper", 1).inference_operations
    assert round(operations / 2 / 1e9, 2) == published
