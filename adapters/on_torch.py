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

    def counts(self):
        """Count the graphs, graph breaks and recompilations that Dynamo reports. Never timed.

        https://docs.pytorch.org/docs/stable/user_guide/torch_compiler/torch.compiler_troubleshooting.html
        """
        counters = torch._dynamo.utils.counters
        # The second number of an id, such as 0/1, counts the compilations of one frame from zero.
        ids = {metrics.compile_id for metrics in torch._dynamo.utils.get_compilation_metrics()}
        return {
            "graphs": counters["stats"]["unique_graphs"],
            "graph breaks": sum(counters["graph_break"].values()),
            "recompilations": sum(not str(one).endswith("/0") for one in ids if one),
        }

    def profile(self, run, folder):
        """Run the steps under torch.profiler. No profile on a GPU."""
        # Imported here because the import of an adapter is timed.
        from levelfield.adapters.profiled_torch import profiled

        return profiled(run, folder) if self.device == "cpu" else None
