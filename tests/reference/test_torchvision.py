"""The image nets compared with torchvision's own and with nets of torch.nn's layers, in float64.

torchvision's constructors make the published sizes only. The nets of the presets tiny and small are
made here, from torchvision's blocks where it has them. Layers are in the order of the definitions,
so that parameters are placed by order. Dropout is off: the definitions have none.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from numpy.typing import NDArray

from levelfield import reference
from levelfield.harness.proof.answer_file import relative_error
from levelfield.reference.answers import run_jax, run_numpy
from levelfield.reference.case import Case
from levelfield.reference.spec import BATCH_NORM_EPSILON, Sizes

torch = pytest.importorskip("torch", reason="type: pip install -e '.[oracles]'")
nn = torch.nn

pytestmark = pytest.mark.long
NAMES = ("alexnet", "vgg11", "vgg16", "googlenet", "resnet18", "resnet50", "resnet101", "resnet152")
EXACT = 1e-12  # relative norm


@pytest.fixture(scope="module")
def vision() -> Any:
    """The package torchvision.

    The wheel on PyPI is built for torch with CUDA. With torch for the CPU, its operators do not
    load and the import ends at two of them. No net here uses these two: a declaration is enough.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return importlib.import_module("torchvision")


def head(sizes: Sizes, channels: int) -> list[nn.Module]:
    """Adaptive pooling and the dense layers of AlexNet and VGG."""
    side, (one, two) = sizes["pooled"], sizes["hidden"]
    hidden = [nn.Linear(side * side * channels, one), nn.ReLU(), nn.Linear(one, two), nn.ReLU()]
    return [
        nn.AdaptiveAvgPool2d((side, side)),
        nn.Flatten(),
        *hidden,
        nn.Linear(two, sizes["classes"]),
    ]


def alexnet(sizes: Sizes, vision: Any) -> nn.Module:
    filters = sizes["filters"]
    layers = [nn.Conv2d(sizes["channels"], filters[0], 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2)]
    layers += [nn.Conv2d(filters[0], filters[1], 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)]
    for before, after in pairwise(filters[1:]):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.MaxPool2d(3, 2), *head(sizes, filters[-1]))


def vgg(sizes: Sizes, vision: Any) -> nn.Module:
    layers, before = [], sizes["channels"]
    for count, filters in zip(sizes["depths"], sizes["filters"], strict=True):
        for _ in range(count):
            layers += [nn.Conv2d(before, filters, 3, padding=1), nn.ReLU()]
            before = filters
        layers.append(nn.MaxPool2d(2, 2))
    return nn.Sequential(*layers, *head(sizes, before))


def googlenet(sizes: Sizes, vision: Any) -> nn.Module:
    parts = importlib.import_module("torchvision.models.googlenet")
    first, second, before = sizes["stem"]
    layers = [
        parts.BasicConv2d(sizes["channels"], first, kernel_size=7, stride=2, padding=3),
        nn.MaxPool2d(3, stride=2, ceil_mode=True),
        parts.BasicConv2d(first, second, kernel_size=1),
        parts.BasicConv2d(second, before, kernel_size=3, padding=1),
    ]
    for stage in sizes["stages"]:
        last = stage == sizes["stages"][-1]
        layers.append(nn.MaxPool2d(2 if last else 3, stride=2, ceil_mode=True))
        for filters in stage:
            layers.append(parts.Inception(before, *filters))
            before = filters[0] + filters[2] + filters[4] + filters[5]
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, sizes["classes"])
    )


def resnet(sizes: Sizes, vision: Any) -> nn.Module:
    parts = importlib.import_module("torchvision.models.resnet")
    block = parts.Bottleneck if sizes["block"] == "bottleneck" else parts.BasicBlock
    before = sizes["width0"]
    stem = nn.Conv2d(sizes["channels"], before, 7, stride=2, padding=3, bias=False)
    layers = [stem, nn.BatchNorm2d(before), nn.ReLU(), nn.MaxPool2d(3, stride=2, padding=1)]
    for stage, blocks in enumerate(sizes["blocks"]):
        planes = sizes["width0"] * 2**stage
        for number in range(blocks):
            stride = 2 if stage and not number else 1
            outer, shortcut = planes * block.expansion, None
            if stride == 2 or before != outer:
                projection = nn.Conv2d(before, outer, 1, stride=stride, bias=False)
                shortcut = nn.Sequential(projection, nn.BatchNorm2d(outer))
            layers.append(block(before, planes, stride, shortcut))
            before = outer
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, sizes["classes"])
    )


BUILDERS = {"alexnet": alexnet, "vgg": vgg, "googlenet": googlenet, "resnet": resnet}


def in_order(net: nn.Module, case: Case) -> Iterator[tuple[str, Any]]:
    """Canonical names and tensors, layer by layer."""
    layers = dict.fromkeys(name.rpartition("/")[0] for name in case.parameters)
    kinds = (nn.Conv2d, nn.Linear, nn.BatchNorm2d)
    modules = [module for module in net.modules() if isinstance(module, kinds)]
    for layer, module in zip(layers, modules, strict=True):
        norm = isinstance(module, nn.BatchNorm2d)
        yield f"{layer}/{'scale' if norm else 'kernel'}", module.weight
        if module.bias is not None:
            yield f"{layer}/bias", module.bias
        if norm:
            yield f"{layer}/mean", module.running_mean
            yield f"{layer}/variance", module.running_var


def turned(value: NDArray[Any], case: Case, name: str) -> NDArray[Any]:
    """The array in torch's order of axes and, after a flattened image, of rows."""
    if value.ndim == 4:
        return value.transpose(3, 2, 0, 1)
    if value.ndim == 2 and name == "hidden1/kernel":
        side = case.sizes["pooled"]
        value = value.reshape(side, side, -1, value.shape[1]).transpose(2, 0, 1, 3)
        value = value.reshape(-1, value.shape[3])
    return value.T


def loaded(net: nn.Module, case: Case) -> nn.Module:
    """The net in float64 with the parameters and statistics of the case."""
    net = net.double()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = BATCH_NORM_EPSILON  # torchvision's GoogLeNet has another
    arrays = {**case.parameters, **case.state}
    with torch.no_grad():
        for name, tensor in in_order(net, case):
            tensor.copy_(torch.tensor(turned(arrays.pop(name), case, name)))
    assert not arrays
    return net


def image(case: Case, number: int) -> Any:
    return torch.tensor(case.inputs[number]["image"].transpose(0, 3, 1, 2)).double()


@pytest.mark.parametrize("preset", ["tiny", "small"])
@pytest.mark.parametrize("name", NAMES)
def test_outputs_losses_and_gradients_are_those_of_torch(
    name: str, preset: str, vision: Any
) -> None:
    case = reference.draw_case(name, preset, seed=11, batch=4, sets=2)
    net = loaded(BUILDERS[case.model.file](case.sizes, vision), case)
    answers = run_jax(case, steps=0)
    for number, expected in enumerate(answers.outputs):
        with torch.no_grad():
            logits = net.eval()(image(case, number))
        assert relative_error(logits.numpy(), expected["logits"]) < EXACT
    for number, inputs in enumerate(case.inputs):  # which moves the running statistics
        net.train().zero_grad()
        labels = torch.tensor(inputs["label"]).long()
        loss = nn.functional.cross_entropy(net(image(case, number)), labels)
        loss.backward()
        assert relative_error(loss.item(), answers.losses[number]["loss"]) < EXACT
        gradients = dict(answers.gradients[number])
        errors = {
            key: relative_error(tensor.grad.numpy(), turned(gradients.pop(key), case, key))
            for key, tensor in in_order(net, case)
            if tensor.requires_grad
        }
        assert not gradients
        assert {key: error for key, error in errors.items() if error > EXACT} == {}


@pytest.mark.parametrize("name", NAMES)
def test_the_published_sizes_are_those_of_torchvision(name: str, vision: Any) -> None:
    case = reference.draw_case(name, "paper", seed=11, batch=1, sets=1)
    own = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
    net = loaded(getattr(vision.models, name)(weights=None, **own), case).eval()
    with torch.no_grad():
        logits = net(image(case, 0)).numpy()
    assert relative_error(logits, run_numpy(case).outputs[0]["logits"]) < EXACT


@pytest.mark.parametrize(
    ("name", "kind", "attribute", "value"),
    [("googlenet", "MaxPool2d", "ceil_mode", False), ("alexnet", "MaxPool2d", "kernel_size", 2)],
)
def test_a_net_with_another_pooling_differs(
    name: str, kind: str, attribute: str, value: Any, vision: Any
) -> None:
    """Seed the fault: these comparisons can fail."""
    case = reference.draw_case(name, "tiny", seed=11, batch=4, sets=1)
    net = loaded(BUILDERS[name](case.sizes, vision), case).eval()
    for module in net.modules():
        if isinstance(module, getattr(nn, kind)):
            setattr(module, attribute, value)
    with torch.no_grad():
        logits = net(image(case, 0)).numpy()
    assert relative_error(logits, run_numpy(case).outputs[0]["logits"]) > 1e-3
