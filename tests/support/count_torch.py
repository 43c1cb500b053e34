"""Operations of torch's own arm by torch.utils.flop_counter; torch's interpreter runs it.

Arguments: pairs of a model's file and the path of a case. Prints a JSON object for each pair: the
operations of one step of every phase. The counter counts the matrix products and convolutions that
torch dispatches, and nothing else. ``SDPBackend.MATH`` computes attention by products that it
knows: it has no formula for the kernel that torch takes on the CPU.
"""

import importlib
import json
import sys

from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from levelfield.adapters.questions import read_case
from levelfield.adapters.torch import Adapter


def counted(step, *arguments):
    """The operations of one step."""
    counter = FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), counter:
        step(*arguments)
    return sum(counter.get_flop_counts().get("Global", {}).values())


adapter = Adapter("cpu", "eager", 1, "float32")
for file, path in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
    case = read_case(path, "adam")
    adapter.load(importlib.import_module(f"levelfield.adapters.torch.{file}"), case)
    counts = {"inference": counted(adapter.infer), "training": counted(adapter.train_step)}
    if case.generation:
        counts["generation"] = counted(adapter.generate, case.generation["count"])
    print(json.dumps(counts))
