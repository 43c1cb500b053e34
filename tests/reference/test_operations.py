"""Operations of every model against closed forms of its sizes, and torch's against its own counter.

A closed form counts multiply-adds of a batch, derived by hand. Only matrix products and
convolutions count (levelfield.reference.trace): a bias, a norm, an activation and a look-up in a
table cost nothing. Each form has two counts. ``needed`` is the least that the answers need.
``torch`` is what torch's arm computes, as ``torch.utils.flop_counter`` counts it: the forms say
where that is more.

* dense: in * out, for each row;
* convolution: in * out for each output and element of its window. Elements in the padding are not
  needed; torch counts them;
* transposed convolution: the same pairs, because it is the gradient of a convolution (V. Dumoulin,
  F. Visin, "A guide to convolution arithmetic for deep learning", 2016, section 4);
* attention: 2 * width for each pair of a query and a key that it sees, for all heads together, and
  4 * time * width^2 for the four dense layers (A. Vaswani et al., "Attention is all you need", NIPS
  2017, section 3.2). torch computes all pairs.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from levelfield import reference
from levelfield.harness.environments import sealed
from levelfield.harness.plan.arms import get_arm
from levelfield.reference import registry
from levelfield.reference.case import write_case
from levelfield.reference.spec import ArraySpec, Sizes, dimension
from levelfield.reference.trace import Tracer, traced_input

ROOT = Path(__file__).parent.parent.parent
MODELS = tuple(reference.definitions())
PRESETS = ("tiny", "small", "paper")
CHEAP = ("tiny", "small")
BATCH = 3


class Count(NamedTuple):
    """Multiply-adds of a batch."""

    needed: int = 0
    torch: int = 0

    def plus(self, *others: Count) -> Count:
        """The sum."""
        return Count(*(sum(parts) for parts in zip(self, *others, strict=True)))

    def times(self, factor: int) -> Count:
        """Several of it."""
        return Count(self.needed * factor, self.torch * factor)


Counts = dict[str, Count]


def both(count: int) -> Count:
    return Count(count, count)


def dense(widths: Sequence[int], rows: int) -> Count:
    """Layers one after the other."""
    return both(rows * sum(a * b for a, b in pairwise(widths)))


def trained(total: Count, first: Count | None = None) -> Count:
    """The forward pass, and a product for the gradient of each factor of each product.

    ``first`` reads the model's inputs, whose gradient training does not need (Griewank and Walther
    2008, section 3.2).
    """
    return total.times(3).plus((first or Count()).times(-1))


def mlp(sizes: Sizes) -> Counts:
    widths = [sizes["features"], *sizes["hidden"], sizes["classes"]]
    total, first = dense(widths, BATCH), dense(widths[:2], BATCH)
    return {"inference": total, "training": trained(total, first)}


def convolution(
    sides: Sequence[int], window: int, channels: int, *, stride: int = 1, padding: int = 0
) -> Count:
    """``sides`` of the larger image; ``channels``: the product of those in and out."""
    needed, torch = BATCH * channels, BATCH * channels
    for size in sides:
        begins = range(-padding, size + padding - window + 1, stride)
        inside = [0 <= begin + element < size for begin in begins for element in range(window)]
        needed, torch = needed * sum(inside), torch * len(inside)
    return Count(needed, torch)


def lenet(sizes: Sizes) -> Counts:
    """LeCun et al. 1998, figure 2: 5x5 windows; padding keeps the first side, pools halve."""
    sides, (one, two) = (sizes["height"], sizes["width"]), sizes["filters"]
    conv1 = convolution(sides, 5, sizes["channels"] * one, padding=2)
    halves = [side // 2 for side in sides]
    rows, columns = ((side - 4) // 2 for side in halves)  # a window of 5 without padding takes 4
    tower = dense([rows * columns * two, *sizes["hidden"], sizes["classes"]], BATCH)
    total = conv1.plus(convolution(halves, 5, one * two), tower)
    return {"inference": total, "training": trained(total, conv1)}


def alexnet(sizes: Sizes) -> Counts:
    """Krizhevsky 2014: 11x11 with stride 4, 5x5, and three of 3x3; overlapping pools by 2."""
    one, two, *others = sizes["filters"]
    sides = [sizes["height"], sizes["width"]]
    first = convolution(sides, 11, sizes["channels"] * one, stride=4, padding=2)
    sides = [((side + 4 - 11) // 4 + 1 - 3) // 2 + 1 for side in sides]
    total = first.plus(convolution(sides, 5, one * two, padding=2))
    sides = [(side - 3) // 2 + 1 for side in sides]
    for a, b in pairwise([two, *others]):
        total = total.plus(convolution(sides, 3, a * b, padding=1))
    widths = [sizes["pooled"] ** 2 * others[-1], *sizes["hidden"], sizes["classes"]]
    total = total.plus(dense(widths, BATCH))
    return {"inference": total, "training": trained(total, first)}


def vgg(sizes: Sizes) -> Counts:
    """Simonyan and Zisserman 2014, table 1: 3x3 keeps the side, each stage halves it."""
    sides, before, parts = [sizes["height"], sizes["width"]], sizes["channels"], []
    for count, filters in zip(sizes["depths"], sizes["filters"], strict=True):
        for _ in range(count):
            parts.append(convolution(sides, 3, before * filters, padding=1))
            before = filters
        sides = [side // 2 for side in sides]
    widths = [sizes["pooled"] ** 2 * before, *sizes["hidden"], sizes["classes"]]
    total = dense(widths, BATCH).plus(*parts)
    return {"inference": total, "training": trained(total, parts[0])}


def googlenet(sizes: Sizes) -> Counts:
    """Szegedy et al. 2014, table 1, the third branch with 3x3; pools halve and round up."""
    first, second, third = sizes["stem"]
    sides = [sizes["height"], sizes["width"]]
    stem = convolution(sides, 7, sizes["channels"] * first, stride=2, padding=3)
    sides = [side // 2 for side in half(sides)]
    total = stem.plus(
        convolution(sides, 1, first * second), convolution(sides, 3, second * third, padding=1)
    )
    before = third
    for stage, modules in enumerate(sizes["stages"], start=1):
        window = 2 if stage == len(sizes["stages"]) else 3
        sides = [-(-(side - window) // 2) + 1 for side in sides]
        for one, a, two, b, three, four in modules:
            total = total.plus(
                convolution(sides, 1, before * (one + a + b + four)),
                convolution(sides, 3, a * two + b * three, padding=1),
            )
            before = one + two + three + four
    total = total.plus(dense([before, sizes["classes"]], BATCH))
    return {"inference": total, "training": trained(total, stem)}


def half(sides: Sequence[int]) -> list[int]:
    """Sides after stride 2 with padding window // 2: half of each, rounded up."""
    return [(side + 1) // 2 for side in sides]


def resnet(sizes: Sizes) -> Counts:
    """He et al. 2016, table 1: a 7x7 stem and a pool halve the side, later stages halve it again.

    A basic block has two 3x3 kernels. A bottleneck has 1x1, 3x3 and 1x1; its stride is on the 3x3,
    so that the first 1x1 kernel sees the larger image. Where the shape changes, a 1x1 kernel
    projects the shortcut.
    """
    width, sides = sizes["width0"], [sizes["height"], sizes["width"]]
    stem = convolution(sides, 7, sizes["channels"] * width, stride=2, padding=3)
    total, before, sides = stem, width, half(half(sides))
    for stage, blocks in enumerate(sizes["blocks"]):
        inner = width * 2**stage
        outer = 4 * inner if sizes["block"] == "bottleneck" else inner
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            after = half(sides) if stride == 2 else sides
            if sizes["block"] == "bottleneck":
                total = total.plus(
                    convolution(sides, 1, before * inner),
                    convolution(sides, 3, inner * inner, stride=stride, padding=1),
                    convolution(after, 1, inner * outer),
                )
            else:
                total = total.plus(
                    convolution(sides, 3, before * inner, stride=stride, padding=1),
                    convolution(after, 3, inner * inner, padding=1),
                )
            if stride == 2 or before != outer:
                total = total.plus(convolution(sides, 1, before * outer, stride=stride))
            before, sides = outer, after
    total = total.plus(dense([before, sizes["classes"]], BATCH))
    return {"inference": total, "training": trained(total, stem)}


def lengths(least: int, most: int) -> tuple[int, int, int]:
    """Lengths of the sequences of the batch: the longest, one between, and the shortest."""
    return most, most - (most - least) // 2, least


def recurrent(sizes: Sizes) -> Counts:
    """At each time step every gate is a dense layer of the token's row and of the last state.

    Gates: Elman 1 (the state itself), LSTM 4 (Hochreiter and Schmidhuber 1997 with Gers 2000), GRU
    3 (Cho et al. 2014). The first state is zero, so that its product and its gradient are not
    needed. torch computes this product and its part of the kernel's gradient.
    """
    gates = {"rnn": 1, "lstm": 4, "gru": 3}[sizes["cell"]] * sizes["units"]
    steps = sum(lengths(sizes["time"] // 4, sizes["time"]))
    state = sizes["units"] * gates
    others = dense([sizes["width"], gates], steps).plus(
        dense([sizes["units"], sizes["classes"]], BATCH)
    )
    further = Count((steps - BATCH) * state, steps * state)
    return {
        "inference": others.plus(further),
        "training": trained(others.plus(further), Count(torch=BATCH * state)),
    }


def vae(sizes: Sizes) -> Counts:
    """Kingma and Welling 2014, appendix C: two heads of the encoder, mean and log variance."""
    features, hidden, latent = sizes["features"], sizes["hidden"], sizes["latent"]
    first, head = dense([features, hidden], BATCH), dense([hidden, latent], BATCH)
    total = first.plus(head.times(2), dense([latent, hidden, features], BATCH))
    return {"inference": total, "training": trained(total, first)}


def neumf(sizes: Sizes) -> Counts:
    """He et al. 2017, figure 3: the tower, and one output of its end next to the factors.

    The element-wise product of the factors is no matrix product.
    """
    tower = sizes["tower"]
    total = dense(tower, BATCH).plus(dense([sizes["factors"] + tower[-1], 1], BATCH))
    return {"inference": total, "training": trained(total)}


def twotower(sizes: Sizes) -> Counts:
    """Yi et al. 2019, section 3: two towers, and the product of every user with every item."""
    width = sizes["tower"][-1]
    towers = [[sizes[kind], *sizes["tower"]] for kind in ("user_features", "item_features")]
    first = dense(towers[0][:2], BATCH).plus(dense(towers[1][:2], BATCH))
    total = both(BATCH * BATCH * width).plus(*(dense(widths, BATCH) for widths in towers))
    return {"inference": total, "training": trained(total, first)}


def dcgan(sizes: Sizes) -> Counts:
    """Radford et al. 2016, figure 1; training is algorithm 1 of Goodfellow et al. 2014.

    The generator makes 4x4 of the noise and doubles it until the image; every further transposed
    convolution, 4x4 too, halves the channels. The discriminator is its mirror image.

    In a training step the generator runs once, with both gradients. The discriminator runs over
    real images, generated images, and these again after its update. The first two runs need the
    gradients of kernels, and of all inputs but the images. The third needs gradients of all inputs,
    and those of no kernel. torch computes the latter too, because the kernels require gradients.
    """
    doublings, channels = sizes["doublings"], sizes["channels"]
    widths = [sizes["filters"] * 2**power for power in reversed(range(doublings))]
    between = [
        convolution([8 * 2**number] * 2, 4, a * b, stride=2, padding=1)
        for number, (a, b) in enumerate(pairwise([*widths, channels]))
    ]
    noise = convolution([4, 4], 4, sizes["latent"] * widths[0])
    generator = noise.plus(*between)
    discriminator = convolution([4, 4], 4, widths[0]).plus(*between)
    twice = trained(discriminator, between[-1]).times(2)
    again = Count(2 * discriminator.needed, 3 * discriminator.torch)
    return {"inference": generator, "training": trained(generator, noise).plus(twice, again)}


def layer(positions: int, read: int, pairs: int, width: int) -> int:
    """A layer of a transformer, with a hidden layer of four times the width.

    Keys and values are of all ``positions``. Queries, and all that follows attention, are only of
    those that are ``read``. ``pairs`` of a query and a key that it sees.
    """
    return (2 * positions + 10 * read) * width**2 + 2 * pairs * width


def bert(sizes: Sizes) -> Counts:
    """Devlin et al. 2019: the pooler reads one position, the head the masked positions alone.

    Positions beyond a sequence's length are not needed, nor are those of the last layer that
    nothing reads. torch computes all. The loss does not depend on the pooler: it needs no
    gradients. torch computes it in the forward pass of training too.
    """
    time, width, masked = sizes["time"], sizes["width"], sizes["masked"]
    needed = 0
    for length in lengths(max(time // 2, masked), time):
        needed += (sizes["layers"] - 1) * layer(length, length, length**2, width)
        needed += layer(length, masked, masked * length, width)
    torch = BATCH * sizes["layers"] * layer(time, time, time**2, width)
    head = dense([width, width, sizes["vocabulary"]], BATCH * masked)
    pooler = dense([width, width], BATCH)
    rest = head.plus(Count(needed, torch))
    return {
        "inference": rest.plus(pooler),
        "training": trained(rest).plus(Count(torch=pooler.torch)),
    }


def gpt2(sizes: Sizes) -> Counts:
    """Radford et al. 2019: the tied head gives logits at every position.

    A query sees its own position and those before it; torch computes whole squares. Decoding needs
    logits from the last position of the prompt on, and only these positions of the last layer.
    torch computes the last layer of the whole prompt. Its queries read the whole cache, which has
    room for one token more than is read.
    """
    time, width, layers = sizes["time"], sizes["width"], sizes["layers"]
    seen = time * (time + 1) // 2
    forward = Count(
        layers * layer(time, time, seen, width), layers * layer(time, time, time**2, width)
    )
    total = forward.times(BATCH).plus(dense([width, sizes["vocabulary"]], BATCH * time))
    count, prompt = sizes["new_tokens"], sizes["prompt"]
    read = prompt + count - 1
    seen_by = [position + 1 for position in range(read)]
    decoded = Count(
        (layers - 1) * layer(read, read, sum(seen_by), width)
        + layer(read, count, sum(seen_by[-count:]), width),
        layers * layer(read, read, read * (read + 1), width),
    )
    head = dense([width, sizes["vocabulary"]], BATCH * count)
    return {
        "inference": total,
        "training": trained(total),
        "generation": decoded.times(BATCH).plus(head),
    }


def encoder(sizes: Sizes) -> Counts:
    """Vaswani et al. 2017: the head reads the first position.

    Positions beyond a sequence's length are not needed, nor are those of the last layer that
    nothing reads. torch computes all.
    """
    time, width, layers = sizes["time"], sizes["width"], sizes["layers"]
    needed = 0
    for length in lengths(max(time // 2, 1), time):
        needed += (layers - 1) * layer(length, length, length**2, width)
        needed += layer(length, 1, length, width)
    torch = BATCH * layers * layer(time, time, time**2, width)
    total = Count(needed, torch).plus(dense([width, sizes["classes"]], BATCH))
    return {"inference": total, "training": trained(total)}


def source_layers(sizes: Sizes) -> Count:
    """The layers of the encoder, and the keys and values of each layer of the decoder.

    Positions beyond a source's length are not needed. torch computes all.
    """
    source, width, layers = sizes["source_time"], sizes["width"], sizes["layers"]
    remembered = 2 * width**2
    needed = sum(
        layers * (layer(length, length, length**2, width) + length * remembered)
        for length in lengths(max(source // 2, 1), source)
    )
    whole = layer(source, source, source**2, width) + source * remembered
    return Count(needed, BATCH * layers * whole)


def target_layers(sizes: Sizes, read: int, pairs: Count) -> Count:
    """The layers of the decoder over ``read`` targets; ``pairs`` of targets that see each other.

    Every target also sees the source, with a query and an output of this attention.
    """
    source, width, layers = sizes["source_time"], sizes["width"], sizes["layers"]
    real = sum(lengths(max(source // 2, 1), source))

    def count(own: int, sources: int) -> int:
        cross = BATCH * read * 2 * width**2 + 2 * read * sources * width
        return layers * (BATCH * layer(read, read, own, width) + cross)

    return Count(count(pairs.needed, real), count(pairs.torch, BATCH * source))


def transformer(sizes: Sizes) -> Counts:
    """Vaswani et al. 2017: encoder, decoder and tied head at every target.

    A target sees itself and those before it; torch computes whole squares. Decoding begins with
    one token, and torch's queries read the whole cache.
    """
    time, width, vocabulary = sizes["time"], sizes["width"], sizes["vocabulary"]
    source, count = source_layers(sizes), sizes["new_tokens"]
    targets = target_layers(sizes, time, Count(time * (time + 1) // 2, time**2))
    total = source.plus(targets, dense([width, vocabulary], BATCH * time))
    further = target_layers(sizes, count, Count(count * (count + 1) // 2, count**2))
    return {
        "inference": total,
        "training": trained(total),
        "generation": source.plus(further, dense([width, vocabulary], BATCH * count)),
    }


CLOSED_FORMS: Mapping[str, Callable[[Sizes], Counts]] = {
    "mlp": mlp,
    "lenet5": lenet,
    "resnet18": resnet,
    "resnet50": resnet,
    "resnet101": resnet,
    "resnet152": resnet,
    "alexnet": alexnet,
    "vgg11": vgg,
    "vgg16": vgg,
    "googlenet": googlenet,
    "rnn": recurrent,
    "lstm": recurrent,
    "gru": recurrent,
    "vae": vae,
    "neumf": neumf,
    "twotower": twotower,
    "dcgan": dcgan,
    "bert": bert,
    "gpt2": gpt2,
    "encoder": encoder,
    "transformer": transformer,
}


def closed_form(name: str, preset: str) -> Counts:
    return CLOSED_FORMS[name](reference.get(name).sizes(preset))


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", MODELS)
def test_operations_are_those_that_the_answers_need(name: str, preset: str) -> None:
    summary = reference.summarize(reference.get(name), preset, BATCH)
    expected = {"generation": 0}
    expected |= {phase: 2 * count.needed for phase, count in closed_form(name, preset).items()}
    assert {phase: getattr(summary, f"{phase}_operations") for phase in expected} == expected


@pytest.fixture(scope="module")
def by_torch(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], dict[str, int]]:
    """The operations of torch's arm, for every model and cheap preset, in one process."""
    environment = sealed.find(get_arm("torch:eager").mode.environment)
    if environment is None:
        pytest.skip("no sealed environment; type: levelfield env build torch")
    folder, keys, words = tmp_path_factory.mktemp("cases"), [], []
    for name in MODELS:
        for preset in CHEAP:
            path = folder / f"{name}-{preset}.npz"
            write_case(reference.draw_case(name, preset, batch=BATCH, sets=1), path)
            keys.append((name, preset))
            words += [reference.get(name).file, str(path)]
    done = subprocess.run(
        [str(environment.interpreter), "-P", str(ROOT / "tests/support/count_torch.py"), *words],
        env={**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "-1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(zip(keys, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.real
@pytest.mark.parametrize("preset", CHEAP)
@pytest.mark.parametrize("name", MODELS)
def test_torch_computes_what_its_closed_form_says(
    name: str, preset: str, by_torch: dict[tuple[str, str], dict[str, int]]
) -> None:
    """To the operation: where ``torch`` is more than ``needed``, the closed form has the reason."""
    expected = {phase: 2 * count.torch for phase, count in closed_form(name, preset).items()}
    assert by_torch[name, preset] == expected


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", MODELS)
def test_no_more_is_needed_than_torch_computes(name: str, preset: str) -> None:
    for count in closed_form(name, preset).values():
        assert 0 < count.needed <= count.torch


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(
    "name",
    [
        *("mlp", "lenet5", "resnet18", "resnet50", "resnet101", "resnet152"),
        *("alexnet", "vgg11", "vgg16", "googlenet", "vae", "neumf", "twotower", "gpt2"),
        *("encoder", "transformer"),
    ],
)
def test_the_reference_leaves_nothing_out(name: str, preset: str) -> None:
    """As torch, except where torch packs sequences or shares the images of a generator."""
    summary = reference.summarize(reference.get(name), preset, BATCH)
    assert summary.reference_operations == 2 * closed_form(name, preset)["training"].torch


@pytest.mark.parametrize(
    ("name", "published"),
    [
        # Billions of multiply-adds, in torchvision's documentation of its models (called GFLOPS).
        ("resnet18", 1.81),
        ("resnet50", 4.09),
        ("resnet101", 7.80),
        ("resnet152", 11.51),
        ("alexnet", 0.71),
        ("vgg11", 7.61),
        ("vgg16", 15.47),
        ("googlenet", 1.50),
    ],
)
def test_with_padding_operations_are_the_published_ones(name: str, published: float) -> None:
    assert round(closed_form(name, "paper")["inference"].torch / BATCH / 1e9, 2) == published


@pytest.mark.parametrize("batch", [1, 2, BATCH, 8])
@pytest.mark.parametrize("preset", CHEAP)
@pytest.mark.parametrize("name", ["rnn", "lstm", "gru", "bert", "encoder", "transformer"])
def test_every_draw_has_the_lengths_that_operations_count(
    name: str, preset: str, batch: int
) -> None:
    case = reference.draw_case(name, preset, batch=batch, seed=3)
    (stated,) = (spec for spec in case.summary.inputs if spec.lengths is not None)
    assert stated.lengths is not None
    arrays = [inputs[stated.name] for inputs in case.inputs]
    drawn = [(a if a.ndim == 1 else (a != 0).sum(1)).tolist() for a in arrays]
    assert [sorted(lengths, reverse=True) for lengths in drawn] == [list(stated.lengths)] * len(
        drawn
    )
    longest = case.sizes["source_time" if stated.name == "source" else "time"]
    assert {lengths[0] for lengths in drawn} == {longest}


def test_a_draw_with_other_lengths_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def draw(sizes: Sizes, batch: int, stream: np.random.Generator) -> dict[str, Any]:
        return {"length": np.full(batch, sizes["time"], np.int32)}

    monkeypatch.setitem(registry._built_in(), "rnn", replace(reference.get("rnn"), draw=draw))
    with pytest.raises(ValueError, match=r"'length' has the lengths \[6, 6\].* states \[1, 6\]"):
        reference.draw_case("rnn", "tiny", batch=2)


def test_one_position_counts_where_lengths_are_not_stated() -> None:
    """A definition from outside may draw any lengths: no more is sure to be needed."""
    batch, time, width, units = 2, 5, 3, 4
    rows, tracer = dimension("batch", batch), Tracer()
    tokens = ArraySpec("tokens", (rows, dimension("time", time)), classes=7)
    length = ArraySpec("length", (rows,), classes=time + 1)
    x = tracer.embed(traced_input(tokens), "embed", count=7, width=width)
    states = tracer.recurrent(x, traced_input(length), "recurrent", units=units, cell="rnn")
    assert states.reads is not None
    assert np.array_equal(states.reads(states.whole())[0], [[True, *[False] * (time - 1)]] * batch)
    assert states.product is not None and states.product.operations(states.whole()) == 0
