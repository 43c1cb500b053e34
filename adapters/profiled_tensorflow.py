"""Time by operator from TensorFlow's profiler, on the CPU."""

import glob
import gzip
import json
import os

import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from levelfield.adapters.profiled_xla import category_by_name
from levelfield.adapters.profiles import MARK, TRACE, operators

HOST = "/host:CPU"
# Types of operations, without the prefixes of oneDNN's and of fused kernels.
TYPE_PREFIXES = ("_MklNative", "_Mkl", "_Fused", "Fused", "_Native")
TYPE_PRODUCTS = ("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum")
TYPE_LAYOUTS = ("Transpose", "Pad", "PadV2", "Reverse", "ReverseV2", "ReverseSequence")
TYPE_COPIES = (
    *("Concat", "ConcatV2", "Pack", "Unpack", "Split", "SplitV", "Slice", "StridedSlice"),
    *("StridedSliceGrad", "Tile", "TensorListStack", "TensorListFromTensor", "DeepCopy"),
    *("TensorListGetItem", "TensorListSetItem", "TensorListPushBack", "TensorListPopBack"),
)
# Operations that compute nothing: references, shapes and the flow of control.
TYPE_DISPATCHED = (
    *("Identity", "IdentityN", "Const", "NoOp", "ReadVariableOp", "Shape", "ShapeN", "Reshape"),
    *("ExpandDims", "Squeeze", "StopGradient", "PreventGradient", "Placeholder", "Rank", "Size"),
    *("While", "StatelessWhile", "If", "StatelessIf", "PartitionedCall", "BroadcastGradientArgs"),
    *("StatefulPartitionedCall", "TensorListReserve", "EmptyTensorList", "TensorListElementShape"),
    *("Merge", "Switch", "Enter", "Exit", "NextIteration", "LoopCond", "_Arg", "_Retval"),
    *("_FusedBroadcastGradientArgs", "VarHandleOp", "Bitcast"),
)
TF_WAITS = ("Wait", "Block")


def profiled(run, folder):
    """Run the steps under TensorFlow's profiler -> the result of ``Adapter.profile``.

    https://www.tensorflow.org/guide/profiler, read 2026-11-28. It writes no trace in Chrome's
    format, so that one is made of its own file.
    """
    tf.profiler.experimental.start(folder)
    with tf.profiler.experimental.Trace(MARK):
        run()
    tf.profiler.experimental.stop()
    (path,) = glob.glob(os.path.join(folder, "plugins", "profile", "*", "*.xplane.pb"))
    events, threads = events_of(path)
    with gzip.open(os.path.join(folder, TRACE), "wt") as file:
        json.dump({"traceEvents": [*threads, *events]}, file)
    return {
        "profiler": "TensorFlow's profiler",
        "trace": TRACE,
        "operators": operators(events, category),
    }


def events_of(path):
    """Read the events of the CPU from an XSpace, and the names of its threads, as Chrome's."""
    space, events, threads = xplane_pb2.XSpace(), [], []
    with open(path, "rb") as file:
        space.ParseFromString(file.read())
    planes = [plane for plane in space.planes if plane.name == HOST]
    for plane in planes:
        for line in plane.lines:
            place = {"pid": 1, "tid": line.id}
            name = {"name": "thread_name", "ph": "M", "args": {"name": line.name}}
            threads.append({**name, **place})
            for event in line.events:
                times = {
                    "ts": line.timestamp_ns / 1e3 + event.offset_ps / 1e6,
                    "dur": event.duration_ps / 1e6,
                }
                title = plane.event_metadata[event.metadata_id].name
                events.append({"ph": "X", **named(title), **times, **place})
    return events, threads


def named(title):
    """Return the name of an event; of an operation, the type, its category and its own name.

    The title of an operation is its name, ":" and its type.
    """
    place, colon, kind = title.rpartition(":")
    if not colon or not place or place.endswith(":") or not kind.isidentifier():
        return {"name": title}  # a function of C++, or an instruction of XLA
    return {"name": kind, "category": category_of_type(kind), "within": place}


def category(name, callers):
    """Return what the time of an event goes to that is no operation."""
    return None if any(word in name for word in TF_WAITS) else category_by_name(name) or "dispatch"


def category_of_type(kind):
    """Return what the time of an operation of this type goes to."""
    for prefix in TYPE_PREFIXES:
        kind = kind[len(prefix) :] if kind.startswith(prefix) else kind
    if kind in TYPE_PRODUCTS:
        return "product"
    if "Conv" in kind and "2D" in kind:
        return "convolution"
    if kind in TYPE_LAYOUTS:
        return "layout"
    if kind in TYPE_COPIES:
        return "copy"
    return "dispatch" if kind in TYPE_DISPATCHED else "computation"
