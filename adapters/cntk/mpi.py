"""Stands in for the MPI library of 2015 that CNTK wants and, in one process, never calls.

Where OpenMPI 1.10 is not installed, the C compiler makes two libraries with its names. They have
every symbol of MPI that CNTK's libraries need. A call of one of them ends the process.
"""

import ctypes
import glob
import importlib.util
import os
import re
import subprocess

NAMES = ("libmpi.so.12", "libmpi_cxx.so.1")
WANTED = re.compile(r"ompi_|MPI_|_Z\w*3MPI\w")
DATA = re.compile(r"ompi_mpi_(?!cxx_op)|_ZT[VIS]")  # objects, and tables of classes


def load_mpi():
    """Load OpenMPI where it is installed, else its substitute. RuntimeError without cc."""
    try:
        for name in NAMES:
            ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
    except OSError:
        folder = os.path.join(os.environ.get("XDG_CACHE_HOME") or ".", "cntk-mpi")
        os.makedirs(folder, exist_ok=True)
        for name, symbols in ((NAMES[0], wanted_symbols()), (NAMES[1], [])):
            path = os.path.join(folder, name)
            if not os.path.exists(path):
                compile_library(path, symbols)
            ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)


def wanted_symbols():
    """Return the symbols of MPI that CNTK's libraries leave undefined."""
    package = importlib.util.find_spec("cntk").submodule_search_locations[0]
    libraries = glob.glob(os.path.join(package, "libs", "*Cntk*.so"))
    command = ["nm", "-D", "--undefined-only", *libraries]
    listed = subprocess.check_output(command, universal_newlines=True)
    symbols = {
        line.split()[-1].partition("@")[0] for line in listed.splitlines() if line[:1] == " "
    }
    return sorted(name for name in symbols if WANTED.match(name))


def compile_library(path, symbols):
    """Compile a shared library of these symbols; its name is the last part of its path."""
    source = "#include <stdlib.h>\n" + "".join(
        f"char {name}[4096];\n" if DATA.match(name) else f"void {name}(void) {{ abort(); }}\n"
        for name in symbols
    )
    soname = "-Wl,-soname," + os.path.basename(path)
    command = ["cc", "-shared", "-fPIC", "-w", "-x", "c", "-", soname, "-o", path + ".part"]
    made = subprocess.run(command, input=source.encode(), stderr=subprocess.PIPE)
    if made.returncode:
        raise RuntimeError("cc cannot make a stand-in for MPI: " + made.stderr.decode())
    os.replace(path + ".part", path)
