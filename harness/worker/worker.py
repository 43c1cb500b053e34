"""The process in which one framework runs. It serves the requests of the host.

It is started as ``python -s worker.py REQUEST_FD REPLY_FD``. One JSON object per line comes in and
one goes out on these private descriptors. The framework's output to its standard streams is its
log and is never parsed. The file runs under Python 3.6 and later, with the standard library and
NumPy only.

Requests are {"do": name, ...arguments}; a reply is {"ok": true, ...results} or
{"ok": false, "status": ..., "reason": ...}. Times are seconds of one monotonic clock that all
processes of the machine share, or durations on it.
"""

import sys
import time

INTERPRETER_UP = time.perf_counter()
del sys.path[0]  # the folder of this file holds modules that must not shadow the framework's own

import functools  # noqa: E402
import importlib.machinery  # noqa: E402
import importlib.util  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import re  # noqa: E402
import signal  # noqa: E402
import traceback  # noqa: E402


def die_with_parent():
    """Ask Linux to kill this process when its supervisor dies (prctl(2), PR_SET_PDEATHSIG).

    The supervisor itself ends this process and all of its descendants when the host dies.
    """
    try:
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    except (ImportError, OSError, AttributeError):
        return  # elsewhere the closed request pipe ends an idle worker


def limit_memory(limit_bytes):
    """Make the kernel refuse private writable memory beyond the limit (setrlimit(2)).

    A lower hard limit, set for the user or the shell, stays, because only root may raise it. Child
    processes inherit the limit, each for itself.
    """
    import resource

    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    if hard != resource.RLIM_INFINITY:
        limit_bytes = min(limit_bytes, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, limit_bytes))


class PackagesByFolder:
    """Finds packages by their own folder alone.

    Putting a folder's parent on sys.path instead would bring everything next to it, for example the
    host's own NumPy, into the framework's sealed environment.
    """

    def __init__(self, folders):
        self.folders = folders

    def find_spec(self, name, path=None, target=None):
        """Return the spec of a package in ``folders`` to the import system, or None (PEP 451)."""
        if name not in self.folders:
            return None
        folder = self.folders[name]
        if not os.path.exists(os.path.join(folder, "__init__.py")):
            spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
            spec.submodule_search_locations = [folder]
            return spec
        return importlib.util.spec_from_file_location(
            name, os.path.join(folder, "__init__.py"), submodule_search_locations=[folder]
        )


class Server:
    """Holds the adapter between requests."""

    def __init__(self):
        self.adapter = None
        self.packages = {}
        self.package = None
        self.module = None  # of the model that was loaded last
        self.case = None

    def do_prepare(self, packages, memory_limit_bytes=None):
        """Prepare this process, before any other request.

        ``packages``: name -> folder of each package that may be imported by name.
        """
        if memory_limit_bytes:
            limit_memory(memory_limit_bytes)
        self.packages = packages
        sys.meta_path.insert(0, PackagesByFolder(packages))
        return {"interpreter_up": INTERPRETER_UP, "python": sys.version.split()[0]}

    def do_start(self, adapter, device, mode, threads, precision):
        """Import the framework through its adapter, whose package name is ``adapter``.

        "describe" is the adapter's description of the framework, with the version of NumPy.
        """
        self.package = adapter
        begin = time.perf_counter()
        module = importlib.import_module(adapter)
        imported = time.perf_counter()
        self.adapter = module.Adapter(device, mode, threads, precision)
        ready = time.perf_counter()
        described = self.adapter.describe()
        # The contract has imported NumPy. The host refuses a description that is no dict.
        if "numpy" in sys.modules and isinstance(described, dict):
            described = dict(described, numpy=sys.modules["numpy"].__version__)
        return {
            "import_seconds": imported - begin,
            "device_seconds": ready - imported,
            "describe": described,
        }

    def do_load(self, case, optimizer, module):
        """Build the model and load a case.

        ``module``: the dotted name of the model's module.
        """
        from levelfield.adapters.questions import read_case

        self.case = read_case(case, optimizer)
        self.module, code = module, None
        if module:
            code = importlib.import_module(module)
        begin = time.perf_counter()
        self.adapter.load(code, self.case)
        return {"build_seconds": time.perf_counter() - begin}

    def folders(self):
        """Return the folders of the adapter's package and of the model's file, as far as known."""
        packages = [self.package, self.module and self.module.rpartition(".")[0]]
        return [self._folder(package) for package in packages if package]

    def _folder(self, package):
        top, _, rest = package.partition(".")
        return os.path.join(self.packages[top], *rest.split(".")) if rest else self.packages[top]

    def _step(self, phase):
        if phase == "generation":
            return functools.partial(self.adapter.generate, self.case.generation["count"])
        return {"inference": self.adapter.infer, "training": self.adapter.train_step}[phase]

    def _first_token(self):
        return self.adapter.generate(1)

    def do_compile(self, phase):
        """Compile ahead of time if the framework offers that."""
        begin = time.perf_counter()
        compiled = self.adapter.compile(phase)
        seconds = time.perf_counter() - begin
        return {"compile_seconds": seconds if compiled else None}

    def do_first_steps(self, phase):
        """Run the first and the second step, each fenced."""
        from levelfield.harness.worker.measure import latency_slice

        first, second = latency_slice(self.adapter, self._step(phase), 2)
        return {"first_step_seconds": first, "second_step_seconds": second}

    def do_answer(self, phase, rounds, graded, steps, path):
        """Write the arm's answers for the gate.

        The answers are every set's outputs (tokens, in generation) for ``rounds`` rounds over the
        sets. Training adds losses and gradients of the first ``graded`` sets and the losses of
        ``steps`` steps. It also adds the parameters after the first and the last of these steps. In
        generation each round begins with the first token alone of every set.
        """
        import numpy

        arrays = {}
        for name, value in self._read(self.adapter.parameters()).items():
            arrays["initial/" + name] = value
        evaluate = self._step("inference" if phase == "training" else phase)
        sets = len(self.case.sets)
        for number in range(rounds * sets):
            if phase == "generation" and number % sets == 0:
                self._first_tokens("first", number, arrays)
            for name, value in self._read(evaluate()).items():
                key = "tokens/%d" if phase == "generation" else "output/%d/" + name
                arrays[key % number] = value
        if phase == "training":
            # After whole rounds the cursor is at set 0 again, here and before the first step.
            self._train(graded, steps, arrays)
        numpy.savez(path, **arrays)
        return {"arrays": len(arrays)}

    def _train(self, graded, steps, arrays):
        """Store the gradients of ``graded`` sets and the effects of ``steps`` steps."""
        for number in range(graded):
            for name, value in self._read(self.adapter.gradients()).items():
                kind, _, parameter = name.partition("/")
                key = "%s/%d/%s" if parameter else "%s/%d%s"
                arrays[key % (kind, number, parameter)] = value
        for _ in range(-graded % len(self.case.sets)):
            self.adapter.wait(self.adapter.infer())
        for number in range(steps):
            for name, value in self._read(self.adapter.train_step()).items():
                arrays["step/%d/%s" % (number, name)] = value
            if number == 0:
                for name, value in self._read(self.adapter.parameters()).items():
                    arrays["stepped/" + name] = value
        for name, value in self._read(self.adapter.parameters()).items():
            arrays["trained/" + name] = value

    def _read(self, handle):
        self.adapter.wait(handle)
        return self.adapter.read(handle)

    def _first_tokens(self, key, begin, arrays):
        """Generate the first token alone of every input set -> seconds; store it in ``arrays``.

        Its names there are made of ``key`` and the numbers from ``begin`` on.
        """
        seconds = []
        for number in range(begin, begin + len(self.case.sets)):
            start = time.perf_counter()
            handle = self._first_token()
            self.adapter.wait(handle)
            seconds.append(time.perf_counter() - start)
            for name, value in self.adapter.read(handle).items():
                arrays["%s/%d/%s" % (key, number, name)] = value
        return seconds

    def do_warm_up(self, phase, seconds, steps, slice_seconds, cap_seconds):
        """Run steps until steady."""
        from levelfield.harness.worker.measure import warm_up

        step = self._step(phase)
        if phase == "generation":
            for _ in self.case.sets:
                self.adapter.wait(self._first_token())
        return warm_up(
            self.adapter,
            step,
            seconds=seconds,
            steps=steps,
            slice_seconds=slice_seconds,
            cap_seconds=cap_seconds,
        )

    def do_calibrate(self, phase, step_seconds, slice_seconds):
        """Return how many steps make a slice, and the seconds of reading what a step makes.

        A training step makes the parameters, too.
        """
        from levelfield.harness.worker.measure import fence_seconds, read_seconds, slice_steps

        fence = fence_seconds(self.adapter, self._step(phase))
        return {
            "fence_seconds": fence,
            "slice_steps": slice_steps(step_seconds, fence, slice_seconds),
            "read_seconds": read_seconds(self.adapter, self._step(phase), phase == "training"),
        }

    def do_check_fence(self, phase, steps, repeats, budget_seconds):
        """Return seconds that show whether the fence waits for everything."""
        from levelfield.harness.worker.measure import check_fence

        return check_fence(
            self.adapter,
            self._step(phase),
            steps,
            parameters=phase == "training",
            repeats=repeats,
            budget_seconds=budget_seconds,
        )

    def do_check_handles(self, phase, repeats, budget_seconds):
        """Return seconds that show whether earlier steps are computed when the last is fenced."""
        from levelfield.harness.worker.measure import check_handles

        return check_handles(self.adapter, self._step(phase), repeats, budget_seconds)

    def do_kept(self, phase, path):
        """Write the timed load's answers on its input sets, beginning at its present cursor.

        In generation these are the first tokens alone, followed by all tokens. Training is not
        asked, because its parameters have moved by now.
        """
        import numpy

        arrays = {}
        if phase == "generation":
            self._first_tokens("first", 0, arrays)
        for number in range(len(self.case.sets)):
            for name, value in self._read(self._step(phase)()).items():
                arrays["output/%d/%s" % (number, name)] = value
        numpy.savez(path, **arrays)
        return {}

    def do_closing(self, phase, kinds, unread, read, path):
        """After the last slice, run ``unread`` steps by the slices' loops, then write the answers.

        The answers of a training are the losses of ``read`` further steps and the parameters after
        all steps. Otherwise they are the outputs or tokens of every input set. "first_seconds" and
        "again_seconds" are those of the first and the second single step on each set. In training,
        "again_seconds" are those of the fenced steps. "first_token_seconds" and
        "again_token_seconds" are those of the first token alone. This token is read before any set
        is decoded whole, and once more at the end, so that an arm cannot take it from elsewhere.
        "fresh_seconds": seconds of an unfenced step among the later ones of the unread steps.
        "waited_share": seconds that threads waited for a core in these steps, over all seconds of
        them; "cpu_share": the same of CPU seconds.
        """
        import numpy

        from levelfield.harness.worker.measure import latency_slice, shares_of_use

        step, sets, arrays, fresh = self._step(phase), len(self.case.sets), {}, 0.0
        first, again, first_token, again_token = [], [], [], []
        shares = shares_of_use()
        if phase == "training":
            fenced = unread // 2 if "latency" in kinds else 0
            again = latency_slice(self.adapter, step, fenced)
            if unread:
                fresh = self._fresh_seconds(step, unread - fenced)
            waited_share, cpu_share = shares()
            for number in range(read):
                for name, value in self._read(step()).items():
                    arrays["step/%d/%s" % (number, name)] = value
            for name, value in self._read(self.adapter.parameters()).items():
                arrays["trained/" + name] = value
        else:
            if phase == "generation":
                first_token = self._first_tokens("first", 0, arrays)
            first = latency_slice(self.adapter, step, sets)
            again = latency_slice(self.adapter, step, sets)
            fresh = self._fresh_seconds(step, unread)
            waited_share, cpu_share = shares()
            if phase == "generation":
                again_token = self._first_tokens("again", 0, arrays)
            for number in range(sets):
                for name, value in self._read(step()).items():
                    arrays["output/%d/%s" % (number, name)] = value
        numpy.savez(path, **arrays)
        return {
            "first_seconds": first,
            "again_seconds": again,
            "first_token_seconds": first_token,
            "again_token_seconds": again_token,
            "fresh_seconds": fresh,
            "waited_share": waited_share,
            "cpu_share": cpu_share,
        }

    def _fresh_seconds(self, step, steps):
        """Return the seconds of a step in the second of two throughput slices.

        Together the slices have ``steps`` steps.
        """
        from levelfield.harness.worker.measure import throughput_slice

        later = steps // 2
        throughput_slice(self.adapter, step, steps - later)
        return throughput_slice(self.adapter, step, later) / later if later else 0.0

    def do_slot(self, phase, steps, extra, kinds, rewarm_seconds):
        """Run a turn of a round: warm up after parking, then a slice of each kind, in this order.

        ``rewarm_seconds`` None leaves out the warm-up. "throughput" is among the kinds.
        "worker_seconds": seconds of the whole turn. "window_seconds": seconds of the throughput
        slice with the loop around it.
        """
        from levelfield.harness.worker.measure import measured_slice, rewarm

        step = self._step(phase)
        begin = time.perf_counter()
        if rewarm_seconds is not None:
            rewarm(self.adapter, step, rewarm_seconds)
        compiled, slices, windows = self.adapter.compilations(), {}, {}
        for kind in kinds:
            one = self._first_token if kind == "first_token" else step
            slices[kind] = measured_slice(self.adapter, one, kind, steps, extra)
            windows[kind] = slices[kind].pop("window_seconds")
        now = self.adapter.compilations()
        return {
            "slices": slices,
            "compiled": 0 if now == compiled else now - compiled,
            "worker_seconds": time.perf_counter() - begin,
            "window_seconds": windows["throughput"],
        }

    def do_steps(self, phase, steps):
        """Run untimed steps, fenced."""
        self.adapter.wait(self.adapter.repeat(self._step(phase), steps))
        return {}

    def do_profile(self, phase, steps, folder):
        """Run untimed steps, then as many under the framework's own profiler.

        "plain_seconds" and "profiled_seconds": seconds of a slice of ``steps`` steps without and
        with the profiler. "counts": those of compilation before the slices; "new_counts": what the
        profiled steps added. The adapter puts its trace into ``folder``. Where it offers no
        profiler, "profiler", "profiled_seconds" and "trace" are null.
        """
        from levelfield.harness.worker.measure import throughput_slice

        step, counts, seconds, new_counts = self._step(phase), self.adapter.counts(), [], {}

        def run():
            before = self.adapter.counts()
            seconds.append(throughput_slice(self.adapter, step, steps))
            for name, count in self.adapter.counts().items():
                new_counts[name] = count - before.get(name, 0)

        plain_seconds = throughput_slice(self.adapter, step, steps)
        profile = self.adapter.profile(run, folder) or {}
        return {
            "plain_seconds": plain_seconds,
            "profiled_seconds": seconds[-1] if profile else None,
            "counts": counts,
            "new_counts": new_counts,
            "profiler": profile.get("profiler"),
            "trace": profile.get("trace"),
            "operators": profile.get("operators", []),
        }

    def do_learn(self, epochs, train_sets, test_sets, path):
        """In every epoch, train on the case's next sets, one step each, then infer the test sets.

        The outputs are written to ``path``. The reply has the loss of each epoch's last step.
        """
        import numpy

        losses, arrays = [], {}
        for epoch in range(epochs):
            self.adapter.wait(self.adapter.repeat(self.adapter.train_step, train_sets - 1))
            loss = self._read(self.adapter.train_step())[self.case.objectives[0]["name"]]
            losses.append(float(loss))
            for number in range(test_sets):
                for name, value in self._read(self.adapter.infer()).items():
                    arrays["output/%d/%d/%s" % (epoch, number, name)] = value
        numpy.savez(path, **arrays)
        return {"train_losses": losses}

    def do_memory(self):
        """Return the peak memory since the last call, and start again."""
        from levelfield.harness.worker.measure import peak_memory_bytes, reset_peak_memory

        peak, device = peak_memory_bytes(), None
        if self.adapter is not None:
            device = self.adapter.device_memory()
        return {"peak_bytes": peak if reset_peak_memory() else None, "device": device}


def text_of(error):
    """Return the text of an exception, or "" if making it fails.

    An error of the system leaves out its number, of which a reader has no use.
    """
    try:
        text = str(error)
        return re.sub(r"\[Errno -?\d+\] ", "", text) if isinstance(error, OSError) else text
    except Exception:  # of its own method, which belongs to the framework
        return ""


def is_out_of_memory(error):
    """Return whether an exception says that memory ran out, in the words of any framework."""
    if isinstance(error, MemoryError):
        return True
    text = (type(error).__name__ + " " + text_of(error)).lower()
    words = ("out of memory", "resource_exhausted", "resourceexhausted", "can't allocate memory")
    return any(word in text for word in words)


def place_of(error, folders):
    """Return where an exception came from, as a readable "file:line".

    This is the innermost frame below one of ``folders``, those of the adapter and of the model's
    file. Without one, it is the innermost frame of all.
    """
    frames = traceback.extract_tb(error.__traceback__)
    below = tuple(folder + os.sep for folder in folders)
    own = [frame for frame in frames if frame.filename.startswith(below)]
    frame = (own or frames)[-1]
    # Results are published, so they must not hold paths of this machine.
    parts = frame.filename.split(os.sep)
    for installed in ("site-packages", "dist-packages"):
        if installed in parts:
            return "%s:%d" % ("/".join(parts[parts.index(installed) + 1 :]), frame.lineno)
    return "%s:%d" % ("/".join(parts[-3:]), frame.lineno)


def missing_method(error):
    """Return the name of the contract's method that an adapter lacks, if that is the error."""
    innermost = traceback.extract_tb(error.__traceback__)[-1]
    if isinstance(error, NotImplementedError):
        inherited = innermost.filename.endswith(os.path.join("adapters", "base.py"))
        return innermost.name if inherited else None
    words = re.search("'Adapter' object has no attribute '([a-z]+[a-z_]*)'", text_of(error))
    if isinstance(error, AttributeError) and words:
        from levelfield.adapters.base import Adapter

        return words.group(1) if hasattr(Adapter, words.group(1)) else None
    return None


def failure(error, package=None, folders=()):
    """Return the reply to a request that raised.

    ``package`` is the name of the adapter's package, if it is known. ``folders`` are those of the
    adapter and of the model's file.
    """
    if type(error).__name__ == "Unsupported":
        return {"ok": False, "status": "unsupported", "reason": text_of(error)}
    if type(error).__name__ == "Mismatch":
        return {"ok": False, "status": "failed", "reason": text_of(error)}
    status = "out-of-memory" if is_out_of_memory(error) else "failed"
    method = missing_method(error)
    if method:
        name = str(package).rpartition(".")[2]
        words = "the adapter %s has no method '%s'; adapters/base.py says what it does"
        return {"ok": False, "status": status, "reason": words % (name, method)}
    words = " ".join(text_of(error).split())[:400]
    name = str(getattr(error, "name", "")).split(".")[0]
    if isinstance(error, ImportError) and name in ("adapters", "harness", "reference"):
        words += "; Levelfield's package is levelfield.%s" % name
    reason = "%s%s (%s)" % (
        type(error).__name__,
        ": " + words if words else "",
        place_of(error, folders),
    )
    return {"ok": False, "status": status, "reason": reason}


def main(request_fd, reply_fd):
    """Answer requests until the host closes the pipe."""
    die_with_parent()
    os.set_inheritable(request_fd, False)
    os.set_inheritable(reply_fd, False)
    worker = Server()
    with os.fdopen(request_fd, "r") as requests, os.fdopen(reply_fd, "w") as replies:
        for line in requests:
            request = json.loads(line)
            try:
                reply = dict(getattr(worker, "do_" + request.pop("do"))(**request), ok=True)
                line = json.dumps(reply)  # inside try: an adapter may return what JSON cannot hold
            except (SystemExit, KeyboardInterrupt):
                raise
            # Every failure of a framework is an answer. A panic of a library in Rust is no
            # Exception (PyO3, PanicException).
            except BaseException as error:
                traceback.print_exc()
                line = json.dumps(failure(error, worker.package, worker.folders()))
            sys.stdout.flush()
            sys.stderr.flush()
            replies.write(line + "\n")
            replies.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
