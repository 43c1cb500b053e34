"""PyTorch: torch.nn models, torch.optim optimisers, eager or under torch.compile."""

import numpy as np
import torch
from torch.nn import functional as F

from adapters.base import Adapter as Base
from adapters.base import Layout, Unsupported

LAYOUT = Layout(
    {
        ("in", "out"): ("out", "in"),
        ("height", "width", "in", "out"): ("out", "in", "height", "width"),
        ("batch", "height", "width", "channel"): ("batch", "channel", "height", "width"),
        ("height", "width", "channel"): ("channel", "height", "width"),
    }
)

LOSSES = {"softmax_cross_entropy": F.cross_entropy}


def make_optimizer(constants, parameters):
    """torch.optim with its own choice of implementation: neither foreach nor fused is set."""
    rate = constants["learning_rate"]
    if constants["name"] == "sgd":
        return torch.optim.SGD(parameters, lr=rate)
    if constants["name"] == "momentum":
        return torch.optim.SGD(parameters, lr=rate, momentum=constants["momentum"])
    betas = constants["beta1"], constants["beta2"]
    return torch.optim.Adam(parameters, lr=rate, betas=betas, eps=constants["epsilon"])


def canonical(name):
    """'hidden1.weight' -> 'hidden1/kernel'."""
    return name.replace(".", "/").replace("weight", "kernel")


class Adapter(Base):
    """``torch:eager`` and ``torch:compile``.

    What is compiled follows "Where to apply torch.compile?": the evaluation step, and the training
    step with the optimiser but without the loop.
    https://docs.pytorch.org/docs/stable/user_guide/torch_compiler/compile/programming_model.where_to_apply_compile.html
    """

    def __init__(self, device, mode, threads, precision):
        if device == "cuda" and not torch.cuda.is_available():
            raise Unsupported("torch finds no device of the kind cuda")
        if precision != "float32":
            raise Unsupported("this adapter computes in float32 only")
        self.compiled = mode == "compile"
        self.device = torch.device(device)
        torch.set_num_threads(threads)
        torch.set_num_interop_threads(1)
        torch.set_float32_matmul_precision("highest")
        # Convolutions have a switch of their own, and cuDNN's is on by default.
        # https://docs.pytorch.org/docs/stable/notes/cuda.html#tensorfloat-32-tf32-on-ampere-and-later-devices
        torch.backends.cudnn.conv.fp32_precision = "ieee"
        if self.compiled:
            # By default a function recompiled too often runs eagerly from then on, with no more
            # than a warning; an arm called compile must fail instead.
            torch._dynamo.config.fail_on_recompile_limit_hit = True

    def describe(self):
        """What torch says of itself."""
        return {
            "version": torch.__version__,
            "numpy": np.__version__,
            "threads": torch.get_num_threads(),
            "interop_threads": torch.get_num_interop_threads(),
            "device": self.device.type,
            "precision": torch.get_float32_matmul_precision(),
            "convolution_precision": self._convolution_precision(),
            "capability": torch.backends.cpu.get_cpu_capability(),
            "compiler": "inductor" if self.compiled else None,
        }

    def _convolution_precision(self):
        backend = torch.backends.cudnn if self.device.type == "cuda" else torch.backends.mkldnn
        return backend.conv.fp32_precision

    def compilations(self):
        """Frames that Dynamo compiled, as its own counters have it; None where it is not used."""
        return torch._dynamo.utils.counters["frames"]["total"] if self.compiled else None

    def device_memory(self):
        """Peaks of the caching allocator since the last call."""
        if self.device.type == "cpu":
            return None
        found = {
            "used_peak_bytes": torch.cuda.max_memory_allocated(),
            "reserved_peak_bytes": torch.cuda.max_memory_reserved(),
        }
        torch.cuda.reset_peak_memory_stats()
        return found

    def load(self, build, case):
        """Parameters are copied into the built module under its own names."""
        torch.compiler.reset()  # the caches know the former module and would count as recompilation
        self.objective, self.dimensions, self.cursor = case.objective, case.dimensions, 0
        self.loss_function = LOSSES[case.objective["loss"]]
        self.model = build(case.sizes).to(self.device)
        self.named = {canonical(name): value for name, value in self.model.named_parameters()}
        with torch.no_grad():
            for name, value in case.parameters.items():
                self.named[name].copy_(self._place(name, value))
        self.sets = []
        for arrays in case.sets:
            tensors = {name: self._place(name, value) for name, value in arrays.items()}
            target = tensors.pop(case.objective["target"])
            self.sets.append((tuple(tensors.values()), target))
        self.optimizer = make_optimizer(case.optimizer, self.model.parameters())
        # Functions, and not model.compile(): that leaves an nn.Sequential silently uncompiled.
        compiler = torch.compile if self.compiled else lambda function: function
        self.forward, self.step = compiler(self._forward), compiler(self._step)

    def _place(self, name, value):
        value = LAYOUT.to_native(value, self.dimensions[name])
        # Class labels and token ids are int64 throughout torch.
        value = value.astype("int64" if value.dtype.kind == "i" else value.dtype)
        return torch.from_numpy(value).to(self.device)

    def _next(self):
        batch = self.sets[self.cursor]
        self.cursor = (self.cursor + 1) % len(self.sets)
        return batch

    def _forward(self, inputs):
        return self.model(*inputs)

    def _step(self, inputs, target):
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss_function(self.model(*inputs), target)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def infer(self):
        """Forward pass in evaluation mode, without the records for gradients."""
        inputs, _ = self._next()
        if self.model.training:
            self.model.eval()
        with torch.inference_mode():
            return {self.objective["output"]: self.forward(inputs)}

    def train_step(self):
        """Forward, backward, optimiser; the loss stays a tensor."""
        inputs, target = self._next()
        if not self.model.training:
            self.model.train()
        return {"loss": self.step(inputs, target)}

    def gradients(self):
        """Through the same forward pass, compiled or not; the module accumulates nothing."""
        inputs, target = self._next()
        self.model.train()
        loss = self.loss_function(self.forward(inputs), target)
        values = torch.autograd.grad(loss, list(self.named.values()))
        gradients = {"gradient/" + n: g for n, g in zip(self.named, values, strict=True)}
        return dict(gradients, loss=loss.detach())

    def parameters(self):
        """The module's own tensors, not copies."""
        return {"parameter/" + name: value.detach() for name, value in self.named.items()}

    def wait(self, handle):
        """On the CPU operations return when they are done, and torch.cpu's is documented as empty.

        https://docs.pytorch.org/docs/stable/generated/torch.cuda.synchronize.html
        """
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        else:
            torch.cpu.synchronize()

    def read(self, handle):
        """Names say what an array is; its dimensions are those of the parameter or output."""
        arrays = {}
        for name, value in handle.items():
            dimensions = self.dimensions.get(
                name.replace("gradient/", "").replace("parameter/", "")
            )
            # The handle of parameters() is live memory that the next step overwrites: copy it.
            array = value.cpu().numpy().copy()
            arrays[name] = LAYOUT.to_canonical(array, dimensions) if dimensions else array
        return arrays
