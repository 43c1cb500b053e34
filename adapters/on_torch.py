"""The work that adapters on PyTorch share: threads, precision, memory.

For ``torch`` and Keras' backend.
"""

import torch

from levelfield.adapters.base import Adapter


class OnTorch(Adapter):
    """An adapter whose arrays are those of torch."""

    def configure(self):
        """Set the threads and switch TF32 off."""
        torch.set_num_threads(self.threads)
        torch.set_float32_matmul_precision("highest")
        # Convolutions have a separate switch for TF32, which is on by default in cuDNN.
        # https://docs.pytorch.org/docs/stable/notes/cuda.html#tensorfloat-32-tf32-on-ampere-and-later-devices
        torch.backends.cudnn.conv.fp32_precision = "ieee"

    def thread_count(self):
        """Return the number of threads that torch reports. Never timed."""
        return torch.get_num_threads()

    def device_memory(self):
        """Return the peaks of the caching allocator since the last call."""
        if self.device == "cpu":
            return None
        peaks = {
            "used_peak_bytes": torch.cuda.max_memory_allocated(),
            "reserved_peak_bytes": torch.cuda.max_memory_reserved(),
        }
        torch.cuda.reset_peak_memory_stats()
        return peaks
