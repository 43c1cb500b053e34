"""PyTorch: torch.nn models, torch.optim optimisers, eager or under torch.compile."""

import torch
from torch import nn
from torch.nn import functional as F

from levelfield.adapters.base import Unsupported, canonical_name
from levelfield.adapters.layout import CHANNELS_FIRST, Layout
from levelfield.adapters.on_torch import OnTorch

LAYOUT = Layout(
    {
        **CHANNELS_FIRST,
        ("in", "out"): ("out", "in"),
        ("up_height", "up_width", "in", "out"): ("in", "out", "up_height", "up_width"),
    }
)

# Canonical names of the tensors of a norm; in all other modules, "weight" is the kernel.
NORM = {"weight": "scale", "running_mean": "mean", "running_var": "variance"}
RECURRENT = {
    "weight_ih_l0": "kernel",
    "weight_hh_l0": "recurrent_kernel",
    "bias_ih_l0": "bias",
    "bias_hh_l0": "recurrent_bias",
}
TENSORS = {
    nn.BatchNorm2d: NORM,
    nn.LayerNorm: NORM,
    nn.Embedding: {"weight": "embedding"},
    nn.RNN: RECURRENT,
    nn.LSTM: RECURRENT,
    nn.GRU: RECURRENT,
}
PACKED = "qkv"  # one nn.Linear for these three
PARTS = ("query", "key", "value")


def cross_entropy(logits, labels):
    """The loss of every label; torch expects the classes in the second axis."""
    return F.cross_entropy(logits.flatten(0, -2), labels.flatten())


def in_batch_softmax(logits):
    """The loss of every row; its label is its own number."""
    return F.cross_entropy(logits, torch.arange(len(logits), device=logits.device))


def evidence_lower_bound(logits, mean, log_variance, target):
    """The negative bound as in pytorch/examples/vae, but averaged over the batch."""
    reconstruction = F.binary_cross_entropy_with_logits(logits, target, reduction="sum")
    divergence = -0.5 * torch.sum(1 + log_variance - mean.pow(2) - log_variance.exp())
    return (reconstruction + divergence) / len(target)


LOSSES = {
    "softmax_cross_entropy": cross_entropy,
    "in_batch_softmax": in_batch_softmax,
    "binary_cross_entropy": F.binary_cross_entropy_with_logits,
    "evidence_lower_bound": evidence_lower_bound,
}


def make_optimizer(constants, parameters, fused):
    """Make an optimiser of torch.optim; with ``fused`` None, torch chooses the implementation."""
    rate = constants["learning_rate"]
    if constants["name"] == "adam":
        betas = constants["beta1"], constants["beta2"]
        epsilon = constants["epsilon"]
        return torch.optim.Adam(parameters, lr=rate, betas=betas, eps=epsilon, fused=fused)
    momentum = constants.get("momentum", 0)
    return torch.optim.SGD(parameters, lr=rate, momentum=momentum, fused=fused)


def canonical_tensors(model):
    """Map canonical names of trained tensors and running statistics to (tensor, part).

    Members of lists count from one ("blocks.0" is "blocks1"). ``part`` is the place in a packed
    kernel, and None for a separate tensor.
    """
    named, earlier, kept = {}, [], model.state_dict()
    for path, module in model.named_modules():
        kinds = TENSORS.get(type(module), {"weight": "kernel"})
        tensors = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        for kind, tensor in tensors:
            frozen = isinstance(tensor, nn.Parameter) and not tensor.requires_grad
            constant = f"{path}.{kind}".lstrip(".") not in kept
            tied = any(tensor is other for other in earlier)
            if frozen or tied or constant or kind == "num_batches_tracked":
                continue
            earlier.append(tensor)
            *parents, owner = path.split(".")
            kind = kinds.get(kind, kind)
            if owner == PACKED:
                for part, name in enumerate(PARTS):
                    named[canonical_name([*parents, name, kind])] = tensor, part
            else:
                named[canonical_name([*parents, owner, kind])] = tensor, None
    return named


def part_of(tensor, part):
    """Return a view of one part."""
    return tensor if part is None else tensor.chunk(len(PARTS))[part]


class Adapter(OnTorch):
    """``torch:eager``, ``torch:compile`` and ``torch:tuned``.

    The compiled functions follow "Where to apply torch.compile?": the evaluation step, and the
    training step with the optimiser but without the loop.
    https://docs.pytorch.org/docs/stable/user_guide/torch_compiler/compile/programming_model.where_to_apply_compile.html
    The tuned mode follows the "Performance Tuning Guide" and "Channels Last Memory Format".
    https://docs.pytorch.org/tutorials/recipes/recipes/tuning_guide.html
    https://docs.pytorch.org/tutorials/intermediate/memory_format_tutorial.html
    """

    layout = LAYOUT
    unbiased_variance = True

    def configure(self):
        """Set the threads, the precision and the mode's options."""
        if self.device == "cuda" and not torch.cuda.is_available():
            raise Unsupported("torch finds no device of the kind cuda")
        super().configure()
        torch.set_num_interop_threads(1)
        self.compiled = self.mode in ("compile", "tuned")
        self.tuned = self.mode == "tuned"
        if self.tuned:
            torch.set_flush_denormal(True)
        if self.compiled:
            # By default a function that is recompiled too often runs eagerly from then on, with
            # only a warning. An arm called compile must fail instead.
            torch._dynamo.config.fail_on_recompile_limit_hit = True

    def describe(self):
        """Describe the run as torch reports it."""
        return {
            "version": torch.__version__,
            "threads": self.thread_count(),
            "interop_threads": torch.get_num_interop_threads(),
            "device": self.device,
            "precision": torch.get_float32_matmul_precision(),
            "convolution_precision": self._convolution_precision(),
            "capability": torch.backends.cpu.get_cpu_capability(),
            "compiler": "inductor" if self.compiled else None,
            "channels_last": self.tuned,
            "fused_optimizer": self.tuned,
            "flush_denormal": self.tuned,
        }

    def _convolution_precision(self):
        backend = torch.backends.cudnn if self.device == "cuda" else torch.backends.mkldnn
        return backend.conv.fp32_precision

    def compilations(self):
        """Return Dynamo's own count of compiled frames; None where Dynamo is not used."""
        return torch._dynamo.utils.counters["frames"]["total"] if self.compiled else None

    def counts(self):
        """Return Dynamo's own counts."""
        return super().counts() if self.compiled else {}

    def profile(self, run, folder):
        """Run the steps under torch.profiler, with the kernels that Inductor wrote by name.

        https://docs.pytorch.org/tutorials/intermediate/inductor_debug_cpu.html, read 2026-11-28
        """
        if self.compiled and self.device == "cpu":
            torch._inductor.config.cpp.enable_kernel_profile = True
            self.load(self.module, self.case)
            run()
        return super().profile(run, folder)

    def load(self, module, case):
        """Build the module and copy the parameters into it under its own names."""
        torch.compiler.reset()  # caches of the former module would count as recompilation
        self.begin(module, case, LOSSES)
        build = getattr(module, "build_tuned", module.build) if self.tuned else module.build
        self.model = build(case.sizes).to(self.device)
        if self.tuned:
            self.model = self.model.to(memory_format=torch.channels_last)
        with torch.no_grad():
            self.named = canonical_tensors(self.model)
            tensors = {name: part_of(*place) for name, place in self.named.items()}
            for name, value in self.given(tensors):
                tensors[name].copy_(torch.from_numpy(value))
        self.optimizers = {
            objective["name"]: make_optimizer(
                case.optimizer, self._parameters_of(objective), fused=self.tuned or None
            )
            for objective in case.objectives
        }
        # Functions are compiled, not model.compile(), which silently skips an nn.Sequential.
        compiler = torch.compile if self.compiled else lambda function: function
        self.forward, self.step = compiler(self._forward), compiler(self._step)
        self.compute = compiler(self._compute)
        for name in ("encode", "advance") if case.generation else ():
            if hasattr(self.model, name):
                setattr(self.model, name, compiler(getattr(self.model, name)))

    def _parameters_of(self, objective):
        prefix = objective["trains"].replace("/", ".")
        return [
            parameter
            for name, parameter in self.model.named_parameters()
            if name.startswith(prefix) and parameter.requires_grad
        ]

    def place(self, name, value):
        """Put the tensor on the device."""
        value = LAYOUT.to_native(value, self.case.dimensions[name])
        # Class labels and token ids are int64 throughout torch.
        value = value.astype("int64" if value.dtype.kind == "i" else value.dtype)
        tensor = torch.from_numpy(value).to(self.device)
        if self.tuned and tensor.ndim == 4:
            return tensor.to(memory_format=torch.channels_last)
        return tensor

    def _forward(self, inputs):
        return self.model(**inputs)

    def _step(self, inputs):
        if hasattr(self.module, "train_step"):
            return self.module.train_step(self.model, self.optimizers, inputs)
        losses = {}
        for name, objective in self.objectives.items():
            self.optimizers[name].zero_grad(set_to_none=True)
            loss = objective(self.model, inputs)
            loss.backward()
            self.optimizers[name].step()
            losses[name] = loss.detach()
        return losses

    def infer(self):
        """Run the forward pass in evaluation mode, without recording gradients."""
        inputs = self.next(self.used)
        if self.model.training:
            self.model.eval()
        with torch.inference_mode():
            return self.case.named_outputs(self.forward(inputs))

    def train_step(self):
        """Run forward, backward and optimiser; the losses stay tensors."""
        if not self.model.training:
            self.model.train()
        return self.step(self.next(self.sets))

    def generate(self, count):
        """Decode in evaluation mode; the step from token to token is compiled."""
        prompt = self.next(self.prompts)
        if self.model.training:
            self.model.eval()
        with torch.inference_mode():
            return {"tokens": self.module.generate(self.model, prompt, count)}

    def gradients(self):
        """Compute gradients of the same losses, compiled or not; restore running statistics."""
        inputs = self.next(self.sets)
        self.model.train()
        before = [value.clone() for value in self.model.buffers()]
        handle = {}
        for objective in self.case.objectives:
            self.model.zero_grad(set_to_none=True)
            loss = self.compute(objective["name"], inputs)
            loss.backward()
            handle[objective["name"]] = loss.detach()
            for name, (tensor, part) in self.trained_by(objective, self.named).items():
                # The gradient is None where the loss does not depend on the tensor.
                whole = torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
                handle["gradient/" + name] = part_of(whole, part)
        self.model.zero_grad(set_to_none=True)
        with torch.no_grad():
            for value, old in zip(self.model.buffers(), before, strict=True):
                value.copy_(old)
        return handle

    def _compute(self, name, inputs):
        return self.objectives[name](self.model, inputs)

    def parameters(self):
        """Return the module's own tensors, not copies."""
        return self.by_kind(
            {name: part_of(tensor.detach(), part) for name, (tensor, part) in self.named.items()}
        )

    def wait(self, handle):
        """Synchronise the device.

        On the CPU, operations return when they are done, and torch.cpu.synchronize is documented as
        empty.
        https://docs.pytorch.org/docs/stable/generated/torch.cuda.synchronize.html
        """
        if self.device == "cuda":
            torch.cuda.synchronize()
        else:
            torch.cpu.synchronize()

    def to_numpy(self, value):
        """Return a copy: the next step overwrites the memory in the handle of parameters()."""
        return value.cpu().numpy().copy()
