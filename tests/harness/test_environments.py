"""Sealed environments, built for real from tiny packages of our own: nothing is fetched."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from levelfield.harness.environments import interpreters, pip, sealed
from levelfield.harness.environments.sealed import EnvironmentFailed, Interpreter
from levelfield.harness.errors import BadInput, RunFailed
from levelfield.harness.plan.arms import EnvironmentSpec
from tests.support.disks import fill
from tests.support.processes import alive, wait_until

ROOT = Path(__file__).resolve().parents[2]
ALPHA = EnvironmentSpec("first", "default", ">=3.11", ("alpha==1.0", "beta"), ("alpha",))

BUILDER = """
import json, signal, sys
from levelfield.harness.plan.arms import EnvironmentSpec
from levelfield.harness.environments.sealed import build
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job may ignore it
requirements = tuple(json.loads(sys.argv[1]))
spec = EnvironmentSpec("first", "default", ">=3.11", requirements, ())
print(build(spec, on_progress=lambda line: print(line, flush=True)).path, flush=True)
"""

# A package whose build says where it runs and goes on only when it may.
SLOW_BACKEND = """
import os, pathlib, shutil, time
folder = pathlib.Path(os.environ["SLOW_FOLDER"])
def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    (folder / "started").write_text("%d %d" % (os.getpid(), os.getpgid(0)))
    while not (folder / "go").exists():
        time.sleep(0.05)
    shutil.copy(str(folder / "slow-1.0-py3-none-any.whl"), wheel_directory)
    return "slow-1.0-py3-none-any.whl"
"""


def make_wheel(folder: Path, name: str, version: str = "1.0") -> None:
    information = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", f"version = '{version}'\n")
        wheel.writestr(
            f"{information}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        wheel.writestr(
            f"{information}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        wheel.writestr(f"{information}/RECORD", "")


def make_slow_package(folder: Path) -> None:
    files = {
        "PKG-INFO": "Metadata-Version: 2.1\nName: slow\nVersion: 1.0\n",
        "backend.py": SLOW_BACKEND,
        "pyproject.toml": "[build-system]\nrequires = []\n"
        "build-backend = 'backend'\nbackend-path = ['.']\n",
    }
    with tarfile.open(folder / "slow-1.0.tar.gz", "w:gz") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"slow-1.0/{name}")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packages")
    for name, version in (("alpha", "1.0"), ("alpha", "2.0"), ("beta", "1.0")):
        make_wheel(folder, name, version)
    make_slow_package(folder)
    return folder


def set_variables(set_variable: Callable[[str, str], None], packages: Path, cache: Path) -> None:
    set_variable("PIP_NO_INDEX", "1")
    set_variable("PIP_FIND_LINKS", str(packages))
    set_variable("PIP_CONFIG_FILE", os.devnull)
    set_variable("PIP_NO_CACHE_DIR", "1")  # a wheel built once would come from there ever after
    set_variable("LEVELFIELD_CACHE", str(cache))


@pytest.fixture(scope="module")
def built_cache(
    packages: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, list[str], float]]:
    """A cache with the finished environment of ALPHA, what its build said, and its seconds."""
    cache = tmp_path_factory.mktemp("cache")
    poison = tmp_path_factory.mktemp("poison")
    (poison / "pip.py").write_text("raise SystemExit('the wrong pip')\n")
    lines: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        set_variables(patch.setenv, packages, cache)
        patch.setenv("PYTHONPATH", str(poison))
        patch.setenv("PYTHONHOME", str(poison))
        patch.setenv("PIP_TARGET", str(poison / "elsewhere"))
        patch.setenv("PIP_USER", "1")
        patch.setenv("FORCE_COLOR", "1")
        begin = time.perf_counter()
        sealed.build(ALPHA, on_progress=lines.append)
        elapsed = time.perf_counter() - begin
    yield cache, lines, elapsed


@pytest.fixture
def cache(packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and pip's settings for working offline."""
    set_variables(monkeypatch.setenv, packages, tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def built(cache: Path, built_cache: tuple[Path, list[str], float]) -> sealed.Environment:
    """A copy of the finished environment of ALPHA for the test to spoil."""
    no_bytecode = shutil.ignore_patterns("__pycache__")  # half of the files
    shutil.copytree(built_cache[0], cache, symlinks=True, ignore=no_bytecode)
    resolution = sealed.find(ALPHA)
    assert resolution is not None
    return resolution


def must_not_run(*_: object) -> str:
    raise AssertionError("nothing had to be run")


def ignore(_: str) -> None:
    pass


@pytest.fixture
def start_builder() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts builds of given requirements in processes of their own, none of which survive."""
    with ExitStack() as stack:

        def start(*requirements: str) -> subprocess.Popen[str]:
            builder = subprocess.Popen(
                [sys.executable, "-c", BUILDER, json.dumps(requirements)],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            stack.enter_context(builder)
            stack.callback(builder.kill)
            return builder

        yield start


def test_a_build_installs_marks_and_locks(
    built: sealed.Environment, built_cache: tuple[Path, list[str], float]
) -> None:
    command = [str(built.interpreter), "-c", "import alpha, beta; print(alpha.version)"]
    assert subprocess.check_output(command, text=True).strip() == "1.0"
    marker = json.loads((built.path / "levelfield.json").read_text())
    assert marker["labels"] == ["first"]
    assert marker["requirements"] == ["alpha==1.0", "beta"]
    assert marker["python_specifier"] == ">=3.11"
    assert marker["python"] == "{}.{}.{}".format(*sys.version_info)
    assert {"alpha==1.0", "beta==1.0"} < set(marker["lock"])
    assert any(line.startswith("pip==") for line in marker["lock"])
    assert marker["lock_hash"] == sealed.lock_hash(built.lock)
    assert 0 < marker["build_seconds"] < built_cache[2]
    assert not list(built.path.glob("*.part"))


def test_the_folder_is_named_by_the_hash_and_has_its_log_beside_it(
    cache: Path, built: sealed.Environment
) -> None:
    assert built.path.parent == cache / "environments"
    assert len(built.path.name) == 16 and int(built.path.name, 16)
    log = built.path.with_suffix(".log").read_text()
    assert "-m pip install" in log and "Successfully installed alpha-1.0 beta-1.0" in log


def test_progress_is_short_lines(built_cache: tuple[Path, list[str], float]) -> None:
    _, output, _ = built_cache
    assert output[0].startswith("making a virtual environment with Python 3.")
    assert "processing alpha-1.0-py3-none-any.whl" in output
    assert output[-1] == "installing 2 packages"


@pytest.mark.parametrize(
    ("line", "short"),
    [
        ("Collecting torch==2.13.0 (from x)\n", "collecting torch==2.13.0"),
        ("  Downloading a-1.whl (755.5 MB)\n", "downloading a-1.whl (755.5 MB)"),
        ("  Downloading https://host/p/a-1.whl#sha256=12 (11kB)\n", "downloading a-1.whl (11kB)"),
        ("  Downloading a-1.whl.metadata (2 kB)\n", None),
        ("  Building wheel for a (setup.py): started\n", "building wheel for a"),
        ("  Building wheel for a (setup.py): finished with status 'done'\n", None),
        ("Installing collected packages: a\n", "installing 1 package"),
        ("Looking in links: /here\n", None),
    ],
)  # fmt: skip
def test_lines_of_pip_are_condensed(line: str, short: str | None) -> None:
    assert pip.condensed(line) == short


def test_an_identical_specification_shares_the_environment(
    built: sealed.Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealed, "failure", must_not_run)
    other = EnvironmentSpec("second", "extra", ">=3.11", ("beta", "alpha==1.0"), ("beta",))
    assert sealed.find(other) == built
    shared = sealed.build(other, on_progress=ignore)
    assert shared.path == built.path
    assert shared.labels == ("first", "second/extra")
    assert sealed.list_environments() == [shared]
    again = sealed.build(ALPHA, on_progress=ignore)
    assert again.labels == ("first", "second/extra")


def test_the_folder_depends_on_all_that_decides_the_content() -> None:
    base = Interpreter(Path("/python"), "3.11.7", "linux-x86_64")
    folder = sealed.environment_folder(ALPHA, base)
    assert folder == sealed.environment_folder(ALPHA, replace(base, version="3.11.9"))
    changed = [
        sealed.environment_folder(replace(ALPHA, python=">=3.10"), base),
        sealed.environment_folder(replace(ALPHA, requirements=("alpha==2.0", "beta")), base),
        sealed.environment_folder(ALPHA, replace(base, version="3.12.7")),
        sealed.environment_folder(ALPHA, replace(base, platform="linux-aarch64")),
    ]
    assert len({folder, *changed}) == 5


def test_without_a_sound_marker_it_is_half_built(built: sealed.Environment) -> None:
    marker = built.path / "levelfield.json"
    whole = marker.read_text()
    numbers = json.dumps({**json.loads(whole), "lock": 5})
    for spoiled in (
        "",
        whole[: len(whole) // 2],
        "[]",
        "{}",
        numbers,
        whole.replace("[", "[1, ", 1),
    ):
        marker.write_text(spoiled)
        assert sealed.find(ALPHA) is None
        assert sealed.list_environments() == []
        assert sealed.half_built() == [built.path]
    marker.write_text(whole)
    assert sealed.find(ALPHA) == built
    assert sealed.half_built() == []


def test_an_environment_whose_python_has_gone_is_not_used(
    built: sealed.Environment, tmp_path: Path
) -> None:
    built.interpreter.unlink()
    built.interpreter.symlink_to(tmp_path / "gone")
    assert sealed.find(ALPHA) is None
    assert sealed.half_built() == [built.path]


def test_a_package_cut_short_is_not_taken_for_installed(built: sealed.Environment) -> None:
    (built.path / "levelfield.json").unlink()
    (site_packages,) = built.path.glob("lib/python*/site-packages")
    # What a kill in the middle of writing `alpha` leaves: pip would call it satisfied.
    (site_packages / "alpha-1.0.dist-info" / "INSTALLER").unlink()
    (site_packages / "alpha.py").unlink()
    finished = sealed.build(ALPHA, on_progress=ignore)
    subprocess.check_call([finished.interpreter, "-c", "import alpha"])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_build_cut_short_leaves_nothing_running_and_is_resumed(
    number: signal.Signals,
    start_builder: Callable[..., subprocess.Popen[str]],
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setenv("SLOW_FOLDER", str(tmp_path))
    make_wheel(tmp_path, "slow")
    spec = replace(ALPHA, requirements=("slow==1.0",))
    builder = start_builder("slow==1.0")
    started = tmp_path / "started"
    wait_until(lambda: started.exists() and bool(started.read_text()), "pip builds the package")
    package_builder, group = map(int, started.read_text().split())
    assert alive(package_builder) and group != os.getpgid(builder.pid)

    builder.send_signal(number)
    output, _ = builder.communicate(timeout=60)
    assert builder.returncode == -number, output
    wait_until(lambda: not alive(package_builder) and not alive(group), "pip is gone")
    if number == signal.SIGINT:
        assert list(temporary.iterdir()) == []  # pip had the time to clean up

    folder = sealed.environment_folder(spec, sealed.choose_interpreter(spec.python))
    assert sealed.find(spec) is None
    assert sealed.half_built() == [folder]
    witness = folder / "witness"
    witness.touch()
    (tmp_path / "go").touch()
    lines: list[str] = []
    finished = sealed.build(spec, on_progress=lines.append)
    assert "slow==1.0" in finished.lock
    assert witness.exists() and not any("virtual environment" in line for line in lines)
    assert sealed.find(spec) == finished


def test_a_failing_pip_gives_its_own_reason_in_one_line(cache: Path) -> None:
    spec = replace(ALPHA, name="odd", requirements=("nowhere-to-be-found==9.9",))
    with pytest.raises(EnvironmentFailed) as caught:
        sealed.build(spec, on_progress=ignore)
    (log,) = (cache / "environments").glob("*.log")
    message = str(caught.value)
    assert "No matching distribution found for nowhere-to-be-found==9.9" in message
    assert "ERROR" not in message and "\n" not in message
    assert str(log) in message and message.endswith("levelfield env build first/odd")
    assert "from versions: none" in log.read_text()
    assert sealed.find(spec) is None and len(sealed.half_built()) == 1


def test_the_reason_of_a_failed_build_stays_until_it_succeeds(cache: Path, packages: Path) -> None:
    spec = replace(ABSENT, requirements=("gamma==9",))
    with pytest.raises(EnvironmentFailed):
        sealed.build(spec, on_progress=lambda line: None)
    reason = sealed.resolve(spec, {}).reason
    assert reason.startswith(
        "its environment could not be built (No matching distribution found for gamma==9), and this"
    )
    assert reason.endswith("type: levelfield env build first") and "\n" not in reason
    make_wheel(packages, "gamma", "9")
    sealed.build(spec, on_progress=lambda line: None)
    assert sealed.resolve(spec, {}).how == "sealed"


def test_a_build_without_its_python_is_its_own_failure(cache: Path) -> None:
    with pytest.raises(EnvironmentFailed, match=r"no Python ==2\.0 .*LEVELFIELD_PYTHONS"):
        sealed.build(replace(ALPHA, python="==2.0"), on_progress=lambda line: None)


def test_a_conflict_is_told_by_the_packages_not_by_a_web_page() -> None:
    lines = [
        "ERROR: Cannot install a==1 and b==1 because these package versions have conflicts.",
        "The conflict is caused by:",
        "ERROR: ResolutionImpossible: for help visit https://pip.pypa.io/",
    ]
    reason = pip.reason_of(lines)
    assert reason == lines[0].removeprefix("ERROR: ").rstrip(".")
    assert pip.reason_of(["No matching distribution found for a", ""]).startswith("No match")


def test_two_builds_at_once_make_one_environment(
    start_builder: Callable[..., subprocess.Popen[str]], cache: Path
) -> None:
    builders = [start_builder("alpha==1.0") for _ in range(2)]
    outputs = [builder.communicate(timeout=120)[0].splitlines() for builder in builders]
    assert [builder.returncode for builder in builders] == [0, 0], outputs
    makers = [lines for lines in outputs if lines[0].startswith("making a virtual environment")]
    waiters = [lines for lines in outputs if lines[0].startswith("waiting for another")]
    assert len(makers) == len(waiters) == 1
    assert makers[0][-1] == waiters[0][-1] == str(sealed.list_environments()[0].path)
    assert len(waiters[0]) == 2


def test_an_interrupted_removal_is_half_built_and_not_resumed(
    built: sealed.Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(folder: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", interrupted)
        with pytest.raises(KeyboardInterrupt):
            sealed.remove(ALPHA)
    assert built.interpreter.exists()
    assert sealed.find(ALPHA) is None
    assert sealed.half_built() == [built.path]
    assert not sealed._resumable(built.path)
    sealed.remove(built.path)
    assert not built.path.exists() and not built.path.with_suffix(".log").exists()
    assert sealed.half_built() == []


def test_a_removal_keeps_off_what_is_being_built(built: sealed.Environment) -> None:
    with sealed._locked(built.path, None), pytest.raises(RunFailed, match="in use"):
        sealed.remove(ALPHA)
    assert sealed.find(ALPHA) == built


def test_only_environments_are_removed(cache: Path, tmp_path: Path) -> None:
    precious = tmp_path / "0123456789abcdef"
    precious.mkdir()
    for which in (precious, cache, ALPHA):
        with pytest.raises(BadInput, match="no environment to remove"):
            sealed.remove(which)
    assert precious.is_dir()


def test_the_size_is_that_of_the_files(built: sealed.Environment) -> None:
    before = sealed.size_bytes(built)
    (built.path / "more").write_bytes(b"x" * 1234)
    assert sealed.size_bytes(built) == before + 1234


def test_a_cache_that_cannot_be_written_is_one_line(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LEVELFIELD_CACHE", str(tmp_path / "file"))
    with pytest.raises(RunFailed, match=r"LEVELFIELD_CACHE=FOLDER$"):
        sealed.build(ALPHA, on_progress=ignore)


# A stranger may not be allowed to read this Python: all is imported before.
STRANGER = """
import os, sys
from levelfield.harness.cli.application import answer
sys.argv = ["levelfield", "env", "list", "--json"]
assert answer() == 0
os.setgroups([])
os.setgid(54321)
os.setuid(54321)
for name in ("HOME", "XDG_CACHE_HOME", "LEVELFIELD_CACHE"):
    os.environ.pop(name, None)
os.environ.update(dict([each.split("=") for each in sys.orig_argv[3:]]))
os._exit(answer())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize(
    ("cache", "line"),
    [
        (None, "no home folder is known for this user; name a folder of your own"),
        ("locked", "environments: cannot read it: Permission denied; name a folder of your own"),
    ],
)
def test_a_stranger_is_told_in_one_line_to_name_a_cache(
    tmp_path: Path, cache: str | None, line: str
) -> None:
    folder = tmp_path / "locked" / "environments"
    folder.mkdir(parents=True)
    folder.chmod(0o700)
    variables = [f"LEVELFIELD_CACHE={tmp_path / cache}"] if cache else []
    done = subprocess.run(
        [sys.executable, "-c", STRANGER, *variables],
        env={**os.environ, "PYTHONPATH": str(ROOT), "LEVELFIELD_CACHE": str(tmp_path / "own")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("levelfield: ")
    assert done.stderr.endswith(f"{line}: export LEVELFIELD_CACHE=FOLDER\n")


def test_an_environment_on_a_full_disk_fails_in_one_line(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEVELFIELD_CACHE", str(small_disk))
    fill(small_disk, 1 << 16)
    with pytest.raises(EnvironmentFailed, match="the disk is full") as caught:
        sealed.build(ALPHA, on_progress=ignore)
    assert str(caught.value).endswith("then type: levelfield env build first")
    assert "\n" not in str(caught.value)
    assert sealed.find(ALPHA) is None


def test_the_lock_hash_changes_with_the_lock_alone() -> None:
    lock = ("alpha==1.0", "beta==1.0")
    assert sealed.lock_hash(lock) == sealed.lock_hash(reversed(lock))
    others = [("alpha==1.1", "beta==1.0"), ("alpha==1.0",), (), ("alpha==1.0beta==1.0",)]
    assert len({sealed.lock_hash(other) for other in [lock, *others]}) == 5


def test_tools_are_installed_before_what_needs_them() -> None:
    steps = pip.pip_steps
    assert steps(["torch==2.13.0", "numpy"]) == [["torch==2.13.0", "numpy"]]
    wanted = ["cntk==2.7", "pip==21.3.1", "--no-build-isolation", "Setuptools<81", "wheels"]
    assert steps(wanted) == [["--no-build-isolation", "pip==21.3.1", "Setuptools<81"], wanted]
    assert steps([]) == []


def fake_python(folder: Path, name: str, version: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f'#!/bin/sh\necho \'["{version}", "linux-x86_64"]\'\n')
    path.chmod(0o755)
    return path


def test_the_running_interpreter_is_preferred() -> None:
    chosen = sealed.choose_interpreter(">=3.6")
    assert chosen.path == Path(sys.executable)
    assert chosen.minor == "{}.{}".format(*sys.version_info)


def test_path_then_pyenv_are_searched_past_what_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shims, real = tmp_path / "shims", tmp_path / "real"
    monkeypatch.setenv("PATH", f"{shims}{os.pathsep}{real}")
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    shim = fake_python(shims, "python3.7", "3.7.0")
    shim.write_text("#!/bin/sh\necho 'command not found' >&2\nexit 127\n")
    with pytest.raises(RunFailed, match=r"no Python ==3\.7\.\*"):
        sealed.choose_interpreter("==3.7.*")
    assert sealed.find(replace(ALPHA, python="==3.7.*")) is None
    old = fake_python(tmp_path / "pyenv/versions/3.7.2/bin", "python3.7", "3.7.2")
    # Where nothing was a moment ago is remembered for the life of the process.
    interpreters.ask.cache_clear()
    assert sealed.choose_interpreter("==3.7.*").path == old
    newer = fake_python(real, "python3.7", "3.7.9")
    interpreters.ask.cache_clear()
    assert sealed.choose_interpreter("==3.7.*") == Interpreter(newer, "3.7.9", "linux-x86_64")
    assert sealed.choose_interpreter("<3.7.5").path == old
    fake_python(real, "python3.9", "3.9.1")
    assert sealed.choose_interpreter("<3.11").version == "3.9.1"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_folder_of_pythons_that_may_not_be_searched_is_passed_over(tmp_path: Path) -> None:
    """A stranger's PYENV_ROOT: the folder of root, for one."""
    (tmp_path / "locked" / "versions" / "3.9.1" / "bin").mkdir(parents=True)
    (tmp_path / "locked").chmod(0o700)
    code = (
        "import os; os.setgid(65534); os.setuid(65534);"
        " from levelfield.harness.environments import interpreters;"
        " print(interpreters._usual_folders())"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"import levelfield.harness.environments.interpreters; {code}"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYENV_ROOT": str(tmp_path / "locked")},
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "/usr/bin" in done.stdout


def test_pyenvs_versions_are_asked_in_place_of_its_shims(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shim takes several times as long to start, and only starts a version that is selected."""
    shims, later = tmp_path / "pyenv/shims", tmp_path / "later"
    shim = fake_python(shims, "python3.7", "3.7.1")
    version = fake_python(tmp_path / "pyenv/versions/3.7.2/bin", "python3.7", "3.7.2")
    fake_python(later, "python3.7", "3.7.3")
    (tmp_path / "link").symlink_to(later)
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    monkeypatch.setenv("PATH", os.pathsep.join(map(str, (shims, later, tmp_path / "link", shims))))
    asked = [path for path in interpreters._candidates(SpecifierSet("==3.7.*")) if path.exists()]
    assert asked[1:3] == [version, later / "python3.7"]
    assert shim not in asked and tmp_path / "link/python3.7" not in asked


def test_interpreters_named_by_the_variable_come_before_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_path = fake_python(tmp_path / "path", "python3.7", "3.7.3")
    in_folder = fake_python(tmp_path / "folder", "python3.7", "3.7.2")
    alone = fake_python(tmp_path / "somewhere", "old-python", "3.7.1")
    monkeypatch.setenv("PATH", str(on_path.parent))
    interpreters.ask.cache_clear()
    for value, chosen in (
        ("", on_path),
        (str(in_folder.parent), in_folder),
        (f"{in_folder.parent}{os.pathsep}{alone}", alone),
    ):
        monkeypatch.setenv("LEVELFIELD_PYTHONS", value)
        assert sealed.choose_interpreter("==3.7.*").path == chosen


def test_conda_and_uv_are_usual_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PYENV_ROOT", raising=False)
    monkeypatch.setenv("PATH", "")
    for folder in ("miniforge3/envs/old/bin", ".local/share/uv/python/cpython-3.7.4/bin"):
        path = fake_python(tmp_path / folder, "python3.7", "3.7.4")
        interpreters.ask.cache_clear()
        assert sealed.choose_interpreter("==3.7.*").path == path
        path.unlink()


FOUND = EnvironmentSpec("odd", "default", ">=3.11", (), ("rare_thing.part",), "ask the vendor")


def test_what_cannot_be_built_is_looked_for(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By importing: a package of the right name without the part is another one."""
    package = tmp_path / "packages" / "rare_thing"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    python = tmp_path / "python"
    path = str(package.parent)
    python.write_text(f"#!/bin/sh\nPYTHONPATH='{path}' exec '{sys.executable}' \"$@\"\n")
    python.chmod(0o755)
    monkeypatch.setenv("LEVELFIELD_PYTHONS", str(python))
    missing = sealed.resolve(FOUND, {})
    assert (missing.how, missing.interpreter) == ("none", None)
    assert missing.reason == (
        "no Python that imports rare_thing.part was found; ask the vendor; "
        "then name its Python: export LEVELFIELD_PYTHONS=PATH"
    )
    (package / "part.py").touch()
    interpreters._version_with.cache_clear()
    resolution = sealed.resolve(FOUND, {})
    assert (resolution.how, resolution.interpreter) == ("found", python)
    assert sealed.resolve(replace(FOUND, python="==3.6.*"), {}).how == "none"
    with pytest.raises(EnvironmentFailed, match="nothing can be built for odd: ask the vendor"):
        sealed.build(FOUND, on_progress=lambda line: None)


def test_a_program_that_is_missing_is_told_first(
    built: sealed.Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = replace(ALPHA, programs=("weaver", "weaver-[0-9]*"), hint="apt install weaver")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    resolution = sealed.resolve(spec, {})
    assert (resolution.how, resolution.interpreter) == ("none", None)
    assert resolution.reason == "weaver or weaver-[0-9]* is not on PATH; apt install weaver"
    (tmp_path / "weaver-7").touch(mode=0o755)
    assert sealed.resolve(spec, {}).how == "sealed"


def test_a_malformed_specifier_is_bad_input() -> None:
    with pytest.raises(BadInput, match=r"'3\.7' is no version specifier"):
        sealed.choose_interpreter("3.7")


ABSENT = replace(ALPHA, imports=("sys_of_no_one",))


def test_an_interpreter_given_comes_first(built: sealed.Environment, tmp_path: Path) -> None:
    other = tmp_path / "python"
    other.symlink_to(built.interpreter)
    resolution = sealed.resolve(ALPHA, {"first": other})
    assert (resolution.interpreter, resolution.how) == (other, "given")
    assert resolution.lock_hash == sealed.lock_hash(resolution.lock)
    spec = replace(ALPHA, name="extra")
    both = {"first": other, "first/extra": Path(sys.executable)}
    assert sealed.resolve(spec, both).interpreter == Path(sys.executable)
    assert sealed.resolve(spec, {"first": other}).interpreter == other
    assert sealed.resolve(spec, {"second": other}).how == "sealed"


def test_an_interpreter_given_has_its_packages_listed(built: sealed.Environment) -> None:
    with_pip = sealed.resolve(ALPHA, {"first": built.interpreter})
    assert with_pip.lock == built.lock and with_pip.lock_hash == built.lock_hash
    sealed.lock_of.cache_clear()
    (package,) = built.path.glob("lib/python*/site-packages/pip")
    shutil.rmtree(package)
    without_pip = sealed.resolve(ALPHA, {"first": built.interpreter})
    assert without_pip.lock == built.lock


def test_an_interpreter_given_must_be_one(cache: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.touch()
    for path in (tmp_path / "nowhere", tmp_path, plain):
        with pytest.raises(BadInput, match=r"not an executable file.*env build first$"):
            sealed.resolve(ALPHA, {"first": path})
    with pytest.raises(BadInput, match="cannot list its packages"):
        sealed.resolve(ALPHA, {"first": Path("/bin/false")})


def test_the_sealed_environment_comes_second(built: sealed.Environment) -> None:
    resolution = sealed.resolve(replace(ALPHA, imports=("json",)), {})
    assert (resolution.interpreter, resolution.how) == (built.interpreter, "sealed")
    assert (resolution.lock, resolution.lock_hash) == (built.lock, built.lock_hash)
    assert resolution.reason == f"sealed environment built {built.built}"


def test_the_running_interpreter_comes_third_and_imports_nothing(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "heavy_framework.py").write_text("raise AssertionError('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    resolution = sealed.resolve(replace(ALPHA, imports=("heavy_framework", "json")), {})
    assert (resolution.interpreter, resolution.how) == (Path(sys.executable), "running")
    assert resolution.reason == "this interpreter can import heavy_framework and json"
    assert any(line.startswith("pytest==") for line in resolution.lock)
    assert resolution.lock_hash == sealed.lock_hash(resolution.lock)


@pytest.mark.parametrize(
    ("requirement", "lack"),
    [
        ("pytest==0.0.1", f"has pytest {pytest.__version__}"),
        ("nowhere==1.0", "does not say which version of nowhere it has"),
        (f"pytest=={pytest.__version__}", ""),
    ],
)
def test_the_running_interpreter_serves_no_other_version_than_the_one_asked_for(
    cache: Path, requirement: str, lack: str
) -> None:
    name, _, version = requirement.partition("==")
    spec = replace(ALPHA, imports=("pytest",), requirements=(name,))
    assert sealed.resolve(spec, {}).how == "running"
    resolution = sealed.resolve(spec.at(version), {})
    assert resolution.how == ("none" if lack else "running")
    assert f"this interpreter {lack or 'can import pytest'}" in resolution.reason


def test_with_nothing_the_reason_ends_in_the_command(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The rest of an uninstalled package: a folder without code.
    (tmp_path / "sys_of_no_one").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    resolution = sealed.resolve(
        replace(ABSENT, name="extra", imports=("json", *ABSENT.imports)), {}
    )
    assert (resolution.interpreter, resolution.how, resolution.lock, resolution.lock_hash) == (
        None,
        "none",
        (),
        None,
    )
    assert resolution.reason == (
        "no sealed environment, and this interpreter cannot import sys_of_no_one; "
        "type: levelfield env build first/extra"
    )


def test_half_built_is_none_too_and_says_so(built: sealed.Environment) -> None:
    (built.path / "levelfield.json").unlink()
    resolution = sealed.resolve(ABSENT, {})
    assert resolution.how == "none" and "half-built" in resolution.reason
    nowhere = sealed.resolve(replace(ABSENT, python="==2.0"), {})
    assert nowhere.reason.startswith("no Python ==2.0 was found")
    assert nowhere.reason.endswith("levelfield env build first")
