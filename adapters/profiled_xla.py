"""The categories of the instructions of XLA, from a program's text (HLO) or from their names.

Uses the standard library alone.
"""

import re

# %name = type opcode(%first, ...), calls=%computation, metadata={op_name="..."}
HLO_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.-]+) = (\(.*?\)|\S+) ([\w-]+)\((?:%([\w.-]+))?")
HLO_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.-]+) \(.*\{$")
HLO_CALLED = re.compile(r"(?:calls|to_apply)=%?([\w.-]+)")
HLO_SOURCE = re.compile(r'op_name="([^"]*)"')
HLO_LAYOUT = re.compile(r"\{[\d,]*\}")
# Opcodes that only move data, and among them those that change the order of elements.
HLO_MOVES = frozenset(
    (
        *("bitcast", "broadcast", "concatenate", "copy", "dynamic-slice"),
        *("dynamic-update-slice", "gather", "pad", "reshape", "reverse", "slice"),
        "transpose",
    )
)
HLO_FILLS = frozenset(("bitcast", "broadcast", "reshape"))  # alone they write constants
# Opcodes by which a fusion that moves data computes where to.
HLO_INDEXING = frozenset(("add", "and", "clamp", "compare", "convert", "select", "subtract"))
HLO_REORDERS = ("transpose", "reverse", "pad")
HLO_FREE = frozenset(("parameter", "constant", "tuple", "get-tuple-element", "iota"))
HLO_CONTROL = ("while", "call", "conditional", "async-start", "async-done")
HLO_PRODUCT_TARGETS = ("matmul", "gemm", "dot")


class Program:
    """The instructions of a program of XLA by name: what each does, and where it came from."""

    def __init__(self, text):
        """Read the text of a module of HLO."""
        self.lines, self.opcodes = {}, {}
        computation = None
        for line in text.splitlines():
            head = HLO_COMPUTATION.match(line)
            if head:
                computation = self.opcodes.setdefault(head.group(1), set())
                continue
            instruction = HLO_INSTRUCTION.match(line)
            if instruction:
                name, kind, opcode, first = instruction.groups()
                self.lines[name] = (kind, opcode, first, line)
                if computation is not None and opcode not in HLO_FREE:
                    computation.add(opcode)

    def category(self, name):
        """Return what the time of an instruction goes to; None if it is not of this program."""
        if name not in self.lines:
            return None
        kind, opcode, first, line = self.lines[name]
        if opcode in HLO_CONTROL:
            return "dispatch"
        if opcode == "copy":
            source = self.lines[first][0] if first in self.lines else kind
            return "copy" if HLO_LAYOUT.findall(source) == HLO_LAYOUT.findall(kind) else "layout"
        if opcode == "custom-call":
            return "product" if any(word in line for word in HLO_PRODUCT_TARGETS) else "computation"
        called = HLO_CALLED.search(line) if opcode == "fusion" else None
        opcodes = self.opcodes.get(called.group(1), {opcode}) if called else {opcode}
        by_name = category_by_name(name)
        if by_name in ("layout", "copy") and opcodes <= HLO_MOVES | HLO_INDEXING:
            return by_name  # what is computed are places
        return category_of(opcodes)

    def source(self, name):
        """Return the operation from which an instruction was compiled, such as "jvp/dot_general".

        The name of the jitted function is left out. "" where the program does not say.
        """
        source = HLO_SOURCE.search(self.lines[name][3]) if name in self.lines else None
        return source.group(1).partition("/")[2] if source else ""


def category_of(opcodes):
    """Return what the time of an instruction with these opcodes goes to."""
    if "convolution" in opcodes:
        return "convolution"
    if "dot" in opcodes:
        return "product"
    if opcodes <= HLO_MOVES and not opcodes <= HLO_FILLS:
        return "layout" if not opcodes.isdisjoint(HLO_REORDERS) else "copy"
    return "computation"


def category_by_name(name):
    """Return the category of an instruction whose program is not known, or None.

    XLA names an instruction by its opcode, and a fusion by some of its opcodes.
    """
    words = re.sub(r"[.\d]+$", "", name).split("_")
    if words[0] in HLO_CONTROL:
        return "dispatch"
    opcodes = set(words) - {"fusion", "wrapped"} - HLO_FREE
    known = opcodes & (HLO_MOVES | {"dot", "convolution"})
    if words[-1] == "fusion" or words[0] == "wrapped" or known:
        return category_of(opcodes)
    return None
