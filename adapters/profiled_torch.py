"""Time by operator from torch.profiler, on the CPU."""

import os
import re

from torch.profiler import ProfilerActivity, profile, record_function

from levelfield.adapters.profiles import MARK, TRACE, chrome_events, operators

# Operators of ATen that make views or allocate, and those that only call others: their own time is
# the dispatcher's.
ATEN_VIEWS = (
    *("_local_scalar_dense", "_reshape_alias", "_to_copy", "_unsafe_view", "alias"),
    *("as_strided", "as_strided_", "chunk", "detach", "detach_", "empty", "empty_like"),
    *("empty_strided", "expand", "expand_as", "flatten", "is_nonzero", "item"),
    *("lift_fresh", "narrow", "new_empty", "new_empty_strided", "numpy_T", "permute"),
    *("ravel", "reshape", "resize_", "resolve_conj", "resolve_neg", "result_type"),
    *("select", "set_", "slice", "split", "squeeze", "swapaxes", "t", "to", "transpose"),
    *("unbind", "unflatten", "unsafe_chunk", "unsafe_split", "unsqueeze", "view"),
    "view_as",
)
ATEN_CALLERS = (
    *("_batch_norm_impl_index", "_batch_norm_impl_index_backward", "_convolution"),
    *("adaptive_avg_pool2d", "batch_norm", "binary_cross_entropy_with_logits", "clone"),
    *("contiguous", "conv2d", "conv_transpose2d", "convolution", "cross_entropy_loss"),
    *("dropout", "einsum", "embedding", "embedding_backward", "full", "full_like", "gru"),
    *("layer_norm", "linear", "log_softmax", "lstm", "matmul", "max_pool2d", "new_zeros"),
    *("nll_loss", "nll_loss_nd", "ones", "ones_like", "rnn_tanh"),
    *("scaled_dot_product_attention", "select_backward", "slice_backward", "softmax"),
    *("stack", "zero_", "zeros", "zeros_like"),
)
ATEN_PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "dot", "mkldnn_linear")
ATEN_PRODUCT_WORDS = ("scaled_dot_product", "linear_pointwise", "rnn_layer")
ATEN_LAYOUTS = ("constant_pad_nd", "flip", "roll", "to_dense", "to_mkldnn")
ATEN_LAYOUT_WORDS = ("packed_sequence", "padded_sequence", "reorder")
ATEN_COPIES = ("copy_", "cat", "_foreach_copy_")
GRAPH = re.compile(r"## Call CompiledFxGraph \w+ ##")  # with a hash in its name
ATEN_LIBRARIES = ("aten", "mkldnn", "mkl", "inductor", "quantized")


def profiled(run, folder):
    """Run the steps under torch.profiler -> the result of ``Adapter.profile``.

    https://docs.pytorch.org/tutorials/recipes/recipes/profiler_recipe.html, read 2026-11-28
    """
    path = os.path.join(folder, TRACE)
    with profile(activities=[ProfilerActivity.CPU]) as profiler, record_function(MARK):
        run()
    profiler.export_chrome_trace(path)
    events = []
    for event in chrome_events(path):
        # The profiler adds events that span a whole profile, in categories of their own.
        if event["cat"] in ("cpu_op", "user_annotation"):
            name = event["name"].replace("autograd::engine::evaluate_function: ", "")
            event["name"] = GRAPH.sub("CompiledFxGraph", name)
            events.append(event)
    rows = operators(events, category)
    return {"profiler": "torch.profiler", "trace": TRACE, "operators": rows}


def category(name, callers):
    """Return what the time of an event of torch.profiler goes to."""
    library, _, operator = name.rpartition("::")
    if "cpp_fused" in name:  # a kernel that Inductor wrote
        return "computation"
    if library not in ATEN_LIBRARIES or operator in ATEN_VIEWS + ATEN_CALLERS:
        return "dispatch"
    if operator in ATEN_PRODUCTS or any(word in operator for word in ATEN_PRODUCT_WORDS):
        return "product"
    if "conv" in operator:
        return "convolution"
    if operator in ATEN_LAYOUTS or any(word in operator for word in ATEN_LAYOUT_WORDS):
        return "layout"
    if operator in ATEN_COPIES:
        # contiguous() copies only where the order of the axes differs.
        return "layout" if "aten::contiguous" in callers else "copy"
    return "computation"
