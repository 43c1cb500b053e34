"""Keras on PyTorch."""

import torch

from levelfield.adapters.keras.common import KerasAdapter


class OnTorch(KerasAdapter):
    """``keras:torch`` and its fit mode."""

    native = torch

    def set_up(self, threads):
        """Set the threads and switch TF32 off."""
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.conv.fp32_precision = "ieee"

    def thread_count(self):
        """Return the number that torch reports."""
        return torch.get_num_threads()

    def has_gpu(self):
        """Whether torch finds a GPU."""
        return torch.cuda.is_available()

    def device_memory(self):
        """Return the peaks of the caching allocator since the last call."""
        if self.device == "cpu":
            return None
        used, reserved = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
        torch.cuda.reset_peak_memory_stats()
        return {"used_peak_bytes": used, "reserved_peak_bytes": reserved}

    def decoder(self):
        """Run prompt and loop without recording gradients."""

        def decode(prompt, count):
            with torch.no_grad():
                return self.module.generate(self.model, torch.from_numpy(prompt), count)

        return decode

    def loss_and_gradients(self, name, x, y, variables):
        """Compute loss and gradients by ``backward``."""
        self.model.zero_grad()
        loss = self.loss_of(name, x, y)
        loss.backward()
        found = [variable.value.grad for variable in variables]
        return loss, [
            torch.zeros_like(variable.value) if gradient is None else gradient
            for variable, gradient in zip(variables, found, strict=True)
        ]

    def wait(self, handle):
        """Do nothing: a step's handle holds NumPy values; operations return when they are done."""
        if self.device == "cuda":
            torch.cuda.synchronize()
