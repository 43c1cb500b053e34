"""The command line as a person or a script meets it: in a process of its own."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import typer
from onnx.numpy_helper import to_array

from levelfield import reference
from levelfield.harness.analysis.summary import summary as summarised
from levelfield.harness.cli.application import answer, app
from levelfield.harness.plan.arms import arms
from levelfield.harness.records import frames, store
from tests.support.sessions import session
from tests.support.terminal import (
    COMMAND,
    Done,
    Terminal,
    installed_misbehaving,
    variables,
    write_suite,
)


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    site = installed_misbehaving(tmp_path_factory)
    shell = Terminal(variables(tmp_path_factory, site), tmp_path_factory.mktemp("home"))
    yield shell
    shell.close()


@dataclass(frozen=True)
class Finished:
    """A run from end to end, and the folder it made."""

    done: Done
    folder: Path


@pytest.fixture(scope="module")
def finished(terminal: Terminal) -> Finished:
    write_suite(terminal.folder / "three.toml", "well", "nan", "exits")
    done = terminal.script("run", "three.toml", "--results", "out/of the way")
    (folder,) = (terminal.folder / "out" / "of the way").iterdir()
    return Finished(done, folder)


def assert_one_line(done: Done, code: int) -> str:
    assert done.code == code, done
    assert done.output == ""
    assert done.errors.startswith("levelfield: ")
    assert done.errors.count("\n") == 1
    assert done.errors.endswith("\n")
    assert "[Errno" not in done.errors
    return done.errors.removeprefix("levelfield: ").strip()


MISTAKES = {
    "run": "name a suite, such as: levelfield run quick; or a run: --resume RUN",
    "run quick --resume somewhere": "a run has its suite in it; leave out 'quick', or --resume",
    "run quik": "unknown suite 'quik' in the command line; did you mean quick?",
    "run missing.toml": "cannot read the suite missing.toml: No such file or directory",
    "run quick --models mpl": "unknown model 'mpl'; did you mean mlp?",
    "run quick --models mlp,": "unknown model ''",
    "run quick --arms torch:egar": "unknown arm 'torch:egar'; did you mean torch:eager",
    "run quick --arms torhc:*": "unknown arm 'torhc:*'; did you mean",
    "run quick --arms torch:eager#2": "type torch:eager; A/A twins are made by --twin torch:eager",
    "run quick --arms jax:jit,torch@2.1:eager#2": "made by --twin torch@2.1:eager",
    "check --arms jax:jit#3": "jax:jit#3 is a copy that Levelfield makes, not an arm to name; type",
    "check --arms jax:jit#+5%": "jax:jit#+5% is a copy that Levelfield makes, not an arm to name",
    "run quick --twin torch:eager#2": "the A/A twin torch:eager#2 is not among the arms (",
    "run quick --arms misbehaving:homeless": "build misbehaving/missing",
    "check --arms misbehaving:homeless,tensorrt:engine": "first: levelfield env build misbehaving/",
    "run quick --arms misbehaving@9:homeless": "levelfield env build misbehaving@9/missing",
    "run quick --arms caffe@1:pycaffe": "unknown arm 'caffe@1:pycaffe'; did you mean caffe:pycaffe",
    "env build tensorrt@1": "unknown environment 'tensorrt@1'; did you mean tensorrt",
    "env build caffe@1/pycaffe": "unknown environment 'caffe@1/pycaffe'; did you mean caffe/pyc",
    "check copy.toml": "copy.toml:3: torch:eager#2 is a copy that Levelfield makes",
    "run quick --presets papr": "unknown preset 'papr' in model mlp; did you mean paper?",
    "run quick --phases trainig": "unknown phase 'trainig'; did you mean training?",
    "run quick --batch 0": "batches[0] is 0, not a whole number from 1",
    "run quick --batch -1": "batches[0] is -1, not a whole number from 1",
    "run quick --threads 9999": "threads must be from 1 to the",
    "run quick --threads 0": "threads must be from 1 to the",
    "run quick --python nonsense": "--python takes NAME=PATH",
    "run quick --python torhc=/bin/true": "unknown framework or environment 'torhc' in --python",
    "run quick --python torch=/does/not/exist": "torch, /does/not/exist, is not an executable file",
    "run quick --python torch=/etc/passwd": "torch, /etc/passwd, is not an executable file",
    "run --resume missing": "name a folder that levelfield run has written",
    "run --resume foreign": "foreign is not a run folder of levelfield",
    "run --resume newer": "newer/run.json: it has schema 99",
    "run --resume empty-description": "run.json cannot be resumed: KeyError('suite')",
    "run --resume foreign --batch 3": "--resume finishes a run as it was planned",
    "check quik": "unknown suite 'quik'",
    "check --models mpl": "unknown model 'mpl'; did you mean mlp?",
    "check --threads 9999": "threads must be from 1 to the",
    "check --python nonsense": "--python takes NAME=PATH",
    "run quick --numeric int9": "unknown numeric mode 'int9'; did you mean int8?",
    "check tiny --models mlp --phases generation": "there is nothing to compare",
    "run tiny --models mlp --phases generation": "there is nothing to compare",
    "export mpl --onnx x.onnx": "unknown model 'mpl'; did you mean mlp?",
    "export mlp --preset papr --onnx x.onnx": "unknown preset 'papr' in model mlp",
    "export mlp --phase trainig --onnx x.onnx": "unknown phase 'trainig' in --phase",
    "export mlp --phase generation --onnx x.onnx": "mlp does not generate",
    "export mlp --onnx file/below.onnx": "file/below.onnx: cannot write there",
    "report missing": "missing",
    "report foreign": "foreign",
    "report newer": "newer/run.json: it has schema 99",
    "report file": "file",
    "advise missing": "missing",
    "advise foreign": "foreign",
    "advise foreign --for trainig": "unknown purpose 'trainig'; did you mean training?",
    "advise foreign --task mpl": "unknown task 'mpl'; did you mean mlp?",
    "advise foreign --weight time": "--weight takes NAME=NUMBER",
    "advise foreign --weight beauty=1": "unknown weight 'beauty'",
    "advise foreign --weight time=1e308": "weight of time should be a number from 0 to 1e+09, not",
    "advise foreign --steps -1": "steps should be a whole number from 0, not -1",
    "advise foreign --memory inf": "memory_mib should be a finite number from 0, not inf",
    "run quick --budget 0s": "--budget is '0s', not a time above 0 and up to 10,000 h; type a num",
    "run quick --budget 10001h": "--budget is '10001h', not a time above 0 and up to 10,000 h; t",
    "run quick --budget soon": "--budget is 'soon', not a time above 0 and up to 10,000 h; type a",
    "advise foreign --need file": "file: ",
    "advise foreign --need absent.toml": "absent.toml: No such file or directory",
    "env build torhc": "unknown environment 'torhc'; did you mean torch",
    "env build --suite quik": "unknown suite 'quik'",
    "env lock torhc": "unknown environment 'torhc'",
    "env remove": "name the environments to remove",
    "env remove torhc": "unknown environment 'torhc'",
    "env remove misbehaving": "misbehaving has no environment to remove",
    "env list --python torch": "--python takes NAME=PATH",
    "export mlp --onnx=": "the argument after --onnx is empty",
    "export mlp --onnx .": "--onnx names no file",
    "env build --suite=": "the argument after --suite is empty",
    f"report {300 * 'a'}": "is not a run folder of levelfield: its run.json: File name too long",
    f"compare {300 * 'a'} file": "a run folder of levelfield: its run.json: File name too long",
    "list models --models-from loop": "loop",
    "list models --models-from broken": "broken/net.py: FileNotFoundError: No such file",
    "check nested.toml": "nested.toml is not TOML: its values are nested too deeply",
    "check decimal.toml": "decimal.toml is not TOML: one of its numbers has too many digits",
    "check hexadecimal.toml": "is not TOML: one of its numbers has too many digits",
    "check unnamed.toml": "unnamed.toml:5: unknown level ''",
    "check pipe": "unknown suite 'pipe'",
    "advise foreign --need nested.toml": "nested.toml: its values are nested too deeply",
    "advise foreign --need hexadecimal.toml": "one of its numbers has too many digits",
    "advise foreign --need pipe": "it is no regular file",
    "history piped": "piped/run.json is no regular file",
    "compare piped file": "piped/run.json is no regular file",
    "report endless": "endless/run.json is no regular file",
    "run quick --results file": "file is no folder; choose one that you may write to",
    "run quick --results file/below": "file/below",
    "run quick --budget \u0661m": "not a time above 0",  # a digit, but no ASCII one
    "env build torch@1.0;rm": "'1.0;rm' is no version; type one such as 1.2.3",
    "run quick --results /proc/below": "/proc/below",
}


@pytest.fixture(scope="module")
def odd_folders(terminal: Terminal) -> None:
    (terminal.folder / "file").write_text("a file")
    (terminal.folder / "loop").symlink_to("loop")
    (terminal.folder / "broken").mkdir()
    (terminal.folder / "broken" / "net.py").symlink_to("absent")
    (terminal.folder / "piped").mkdir()
    for pipe in ("pipe", "piped/run.json"):
        os.mkfifo(terminal.folder / pipe)
    (terminal.folder / "endless").mkdir()
    (terminal.folder / "endless" / "run.json").symlink_to("/dev/zero")
    suite = 'title = "t"\nmodels = ["mlp"]\narms = ["torch:eager"]\npresets = ["tiny"]\n'
    for name, text in {
        "nested": f"a = {100_000 * '['}",
        "decimal": f"seed = {5_000 * '9'}",
        "hexadecimal": f"seed = 0x{5_000 * 'f'}",
        "unnamed": f'{suite}level = ""\n',
        "copy": suite.replace("eager", "eager#2"),
    }.items():
        (terminal.folder / f"{name}.toml").write_text(text)
    (terminal.folder / "foreign").mkdir()
    (terminal.folder / "foreign" / "run.json").write_text('{"kind": "of another program"}')
    description = {"kind": store.KIND, "schema": store.SCHEMA, "cells": [], "name": "x"}
    for name, schema in (("newer", 99), ("empty-description", store.SCHEMA)):
        (terminal.folder / name).mkdir()
        text = json.dumps({**description, "schema": schema})
        (terminal.folder / name / "run.json").write_text(text)


@pytest.mark.usefixtures("odd_folders")
@pytest.mark.parametrize("command", MISTAKES)
def test_a_mistake_costs_one_line_and_exit_code_2(terminal: Terminal, command: str) -> None:
    arguments = command.split()
    if "--results" in arguments:
        arguments += ["--arms", "misbehaving:well", "--models", "mlp", "--presets", "tiny"]
    assert MISTAKES[command] in assert_one_line(terminal(*arguments), 2)


def test_the_console_script_itself_answers_so(terminal: Terminal) -> None:
    message = assert_one_line(terminal.script("run", "quik"), 2)
    assert message == "unknown suite 'quik' in the command line; did you mean quick?"


# command -> how the line begins, what it says was expected, and whose help it names
MISUSES = {
    "nonsense": ("no such command 'nonsense'; ", "expected one of list, check, run, ", ""),
    "rn": ("no such command 'rn'; did you mean 'run'? ", "expected one of list, check, run, ", ""),
    "--nonsense": ("no such option: --nonsense", "expected one of list, check, run, ", ""),
    "--vers": ("no such option: --vers (", "--version", ""),
    "run --nonsense": ("no such option: --nonsense", "expected levelfield run [OPTIONS]", " run"),
    "run quik --lvel x": ("no such option: --lvel (", "--level", " run"),
    "run quick --batch few": ("invalid value for '--batch': ", "valid integer", " run"),
    "run quick --margin x": ("invalid value for '--margin': ", "valid number", " run"),
    "run quick more": ("got unexpected extra argument", "expected levelfield run ", " run"),
    "run --level": ("option '--level' requires an argument; ", "", " run"),
    "list --json=3": ("option '--json' does not take a value; ", "", " list"),
    "list modls": ("invalid value for 'what'", "'models', 'adapters', 'suites'", " list"),
    "list models --batch 0": ("invalid value for '--batch': ", "or equal to 1", " list"),
    "list models --batch 65537": ("invalid value for '--batch': ", "or equal to 65536", " list"),
    "report": ("missing argument 'runs'; ", "expected levelfield report [OPTIONS] ", " report"),
    "export mlp": ("missing option '--onnx'; ", "expected levelfield export ", " export"),
    "env nonsense": ("no such command 'nonsense'; ", "expected one of build, list, lock", " env"),
    "env build --level": ("no such option: --level", "expected levelfield env ", " env build"),
    "env lock": ("missing argument 'label'; ", "expected levelfield env lock ", " env lock"),
}


@pytest.mark.parametrize("command", MISUSES)
def test_a_mistake_of_usage_costs_one_line_and_exit_code_2(
    terminal: Terminal, command: str
) -> None:
    begin, expected, words = MISUSES[command]
    message = assert_one_line(terminal(*command.split()), 2)
    assert message.startswith(begin)
    assert expected in message
    assert message.endswith(f" type: levelfield{words} --help")


def test_an_arm_that_cannot_run_has_its_own_reason_and_no_advice_about_the_suite(
    terminal: Terminal,
) -> None:
    message = assert_one_line(terminal("run", "quick", "--arms", "tensorrt:engine"), 2)
    assert message.startswith("tensorrt:engine cannot run: ")
    assert "needs an NVIDIA GPU" in message
    assert "env build" not in message


def test_an_environment_that_is_not_built_is_a_failure_not_a_mistake(terminal: Terminal) -> None:
    message = assert_one_line(terminal("env", "lock", "misbehaving"), 1)
    assert message == "misbehaving is not built; type: levelfield env build misbehaving"


def test_what_is_never_built_is_not_said_to_lack_a_build(terminal: Terminal) -> None:
    message = assert_one_line(terminal("env", "lock", "tensorrt"), 1)
    assert message.startswith("tensorrt is never built, and has no packages of its own: ")
    assert "env build" not in message


def test_a_batch_has_a_bound_in_a_suite_and_on_the_command_line(
    terminal: Terminal, tmp_path: Path
) -> None:
    suite = tmp_path / "big.toml"
    suite.write_text(
        'title = "Big"\nmodels = ["mlp"]\narms = ["torch:eager"]\nbatches = [1000000000000000]\n'
    )
    expected = "not a whole number from 1 to 1,048,576"
    assert expected in assert_one_line(terminal("check", str(suite)), 2)
    assert expected in assert_one_line(terminal("check", "tiny", "--batch", "1048577"), 2)


def commands() -> dict[tuple[str, ...], Any]:
    """Every command and group by its words."""

    def walk(command: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
        yield words, command
        for name, inner in getattr(command, "commands", {}).items():
            yield from walk(inner, (*words, name))

    return dict(walk(typer.main.get_command(app), ()))


def test_there_is_every_command_that_is_promised_so_far() -> None:
    tops = {words[0] for words in commands() if words}
    assert tops >= {"list", "env", "check", "run", "report", "plot", "advise", "history"}
    assert {("env", name) for name in ("build", "list", "lock", "remove")} <= set(commands())


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_and_every_option_says_what_it_is_for(
    terminal: Terminal, words: Sequence[str]
) -> None:
    command = commands()[tuple(words)]
    assert command.help
    done = terminal(*words, "--help")
    assert (done.code, done.errors) == (0, "")
    shown = " ".join(done.output.split())
    assert command.help.split("\n")[0].strip() in shown
    for parameter in command.params:
        assert parameter.help, f"{' '.join(words)}: {parameter.name} lacks its help"
        assert " ".join(parameter.help.split()) in shown
        assert all(name in shown for name in parameter.opts)


def test_help_is_shown_where_a_command_is_missing(terminal: Terminal) -> None:
    for words in ((), ("env",)):
        done = terminal(*words)
        assert "Commands:" in done.output + done.errors
        assert done.code == 2


def test_the_version_is_that_of_the_package_and_names_the_commit(terminal: Terminal) -> None:
    done = terminal("--version")
    assert (done.code, done.errors) == (0, "")
    match = re.fullmatch(r"levelfield (\S+)( \(commit [0-9a-f]{12}(, changed)?\))?\n", done.output)
    assert match is not None
    assert match[1] == version("levelfield")


def test_an_installed_wheel_names_its_version_and_no_commit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = {"version": "1.2", "commit": None, "changed": None}
    monkeypatch.setattr("levelfield.harness.machine.describe.code_version", lambda: code)
    monkeypatch.setattr(sys, "argv", ["levelfield", "--version"])
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # which answer() replaces
    assert answer() == 0
    assert capsys.readouterr().out == "levelfield 1.2\n"


def test_list_gives_the_shapes_and_costs_of_every_model_to_scripts(terminal: Terminal) -> None:
    done = terminal("list", "models", "--json")
    assert (done.code, done.errors) == (0, "")
    models = {model["name"]: model for model in json.loads(done.output)}
    assert set(models) == set(reference.definitions())
    for name, model in models.items():
        assert set(model["presets"]) == {"tiny", "small", "paper"}
        for preset, summary in model["presets"].items():
            counted = 0
            for kind in ("inputs", "parameters", "outputs"):
                for array in summary[kind].values():
                    assert len(array["axes"]) == len(array["shape"]) > 0
            for array in summary["parameters"].values():
                size = 1
                for length in array["shape"]:
                    size *= length
                counted += size
            assert counted == summary["parameter_count"]
            assert summary["inference_operations"] > 0, (name, preset)
            if model["family"] in ("dense", "convolutional"):  # no tables, no second net
                assert summary["inference_operations"] > 2 * counted * 0.9, (name, preset)
                assert summary["inference_bytes"] > 4 * counted
    paper = models["mlp"]["presets"]["paper"]
    assert paper["parameter_count"] == 784 * 512 + 512 + 512 * 512 + 512 + 512 * 10 + 10
    assert paper["parameters"]["hidden1/kernel"] == {"axes": ["in", "out"], "shape": [784, 512]}


def test_operations_grow_with_the_batch_and_parameters_do_not(terminal: Terminal) -> None:
    one, eight = (
        # Examples of a model without lengths need equally many operations.
        json.loads(terminal("list", "models", "lenet5", "--json", "--batch", batch).output)
        for batch in ("1", "8")
    )
    assert eight["inference_operations"] == 8 * one["inference_operations"]
    assert eight["parameter_count"] == one["parameter_count"]


def test_list_without_a_word_lists_everything(terminal: Terminal) -> None:
    document = json.loads(terminal("list", "--json").output)
    assert set(document) == {"models", "adapters", "suites"}
    assert {"quick", "tiny"} <= {suite["name"] for suite in document["suites"]}
    assert all(suite["cells"] > 0 for suite in document["suites"])
    shown = terminal("list")
    assert shown.code == 0
    assert all(word in shown.output for word in ("lenet5", "torch:eager", "quick"))


def test_list_adapters_names_every_arm_with_what_it_needs(terminal: Terminal) -> None:
    rows = {arm["arm"]: arm for arm in json.loads(terminal("list", "adapters", "--json").output)}
    assert set(arms()) <= set(rows)
    assert rows["torch:eager"]["environment"] == "torch"
    assert rows["misbehaving:inference-only"]["phases"] == ["inference"]
    assert rows["misbehaving:well"]["models"] == list(reference.definitions())
    assert all(arm["documentation"] for arm in rows.values())
    # What cannot be installed says how it is to be had.
    for arm in arms().values():
        assert arm.mode.environment.requirements or arm.mode.environment.hint


def test_list_adapters_says_what_runs_here_and_why_not(terminal: Terminal) -> None:
    done = terminal("list", "adapters", "--json", "--python", f"torch={sys.executable}")
    rows = {arm["arm"]: arm for arm in json.loads(done.output)}
    assert rows["torch:eager"]["runs here"] and not rows["torch:eager"]["why"].startswith("no ")
    assert not rows["misbehaving:homeless"]["runs here"]
    assert rows["misbehaving:homeless"]["why"].endswith("levelfield env build misbehaving/missing")
    assert not rows["tensorrt:engine"]["runs here"]
    assert "needs an NVIDIA GPU" in rows["tensorrt:engine"]["why"]
    shown = terminal("list", "adapters").output
    assert f"tensorrt:engine: not here: {rows['tensorrt:engine']['why']}" in shown


def test_env_list_tells_which_interpreter_serves_which_arm(terminal: Terminal) -> None:
    done = terminal("env", "list", "--json", "--python", f"torch={sys.executable}")
    rows = {row["arm"]: row for row in json.loads(done.output)}
    assert set(arms()) <= set(rows)
    served = {arm: row["served by"] for arm, row in rows.items()}
    assert served["torch:eager"] == "given"
    assert served["misbehaving:well"] == "running"
    assert set(served.values()) <= {"given", "running", "none"}  # the cache of this test is empty
    for row in rows.values():
        assert bool(row["interpreter"]) == bool(row["lock"]) == (row["served by"] != "none")
        way = any(
            word in row["why"] for word in ("levelfield env build", "LEVELFIELD_PYTHONS", "apt")
        )
        assert way == (row["served by"] == "none")


def test_a_run_prints_its_table_and_writes_its_report(finished: Finished) -> None:
    done = finished.done
    assert done.code == 0, done.errors
    assert "Traceback" not in done.output + done.errors
    for mode, status in (("well", "ok"), ("nan", "wrong"), ("exits", "failed")):
        assert f"misbehaving:{mode}" in done.output
        assert status in done.output
    progress = [line for line in done.errors.splitlines() if line.startswith("[")]
    assert [line.split("]")[0] for line in progress] == [f"[{n}/6" for n in range(1, 7)]
    report = finished.folder / "report"
    assert (report / "report.md").read_text()
    assert {path.suffix for path in report.rglob("*.*")} == {".html", ".json", ".md", ".tex"}
    assert done.output.rstrip().endswith("report.html")


def test_a_run_gives_every_cell_its_status_and_numbers_to_the_right_only(
    finished: Finished,
) -> None:
    summary = summarised(frames.load(finished.folder)).set_index(["mode", "phase"])
    for phase in ("inference", "training"):
        assert summary.loc[("well", phase), "status"] == "ok"
        assert summary.loc[("well", phase), "step_seconds"] > 0
        assert summary.loc[("nan", phase), "status"] == "wrong"
        assert summary.loc[("exits", phase), "status"] == "failed"
    measured = {"nan", "exits"} & set(
        frames.load(finished.folder).slices.merge(frames.load(finished.folder).cells)["mode"]
    )
    assert measured == set()


def test_a_run_leaves_nothing_but_its_folder(terminal: Terminal, finished: Finished) -> None:
    assert {path.name for path in finished.folder.iterdir()} == {
        "run.json",
        "records.jsonl",
        "logs",
        "lock",
        "report",
    }
    assert finished.folder.name.endswith("-three")
    assert not (terminal.folder / "results").exists()


def test_a_report_is_made_again_from_the_records_alone(
    terminal: Terminal, finished: Finished, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished.folder, copy, ignore=shutil.ignore_patterns("report", "logs"))
    done = terminal("report", copy, "--output", tmp_path / "elsewhere")
    assert done.code == 0, done.errors
    tables = [finished_run.output.rsplit("next: ", 1)[0] for finished_run in (done, finished.done)]
    assert tables[0] == tables[1]
    assert (tmp_path / "elsewhere" / "report.md").is_file()
    assert not (copy / "report").exists()


def test_a_report_that_cannot_be_written_costs_one_line(
    terminal: Terminal, finished: Finished
) -> None:
    (terminal.folder / "occupied").write_text("a file")
    done = terminal("report", finished.folder, "--output", "occupied/below")
    assert done.code == 2
    assert done.errors.count("\n") == 1
    assert "occupied/below" in done.errors
    assert done.errors.endswith("that you may write to by --output\n")
    assert "misbehaving:well" in done.output, "the tables are shown in any case"


def test_arms_to_highlight_are_given_with_commas_or_several_times(
    terminal: Terminal, finished: Finished
) -> None:
    arms = ["misbehaving:well,misbehaving:nan", "misbehaving:exits"]
    images = []
    for name, given in (("first", arms[1:]), ("all", arms), ("none", [])):
        options = [word for arm in given for word in ("--highlight", arm)]
        done = terminal("plot", "step-time", finished.folder, "--output", name, *options)
        assert (done.code, done.errors) == (0, "")
        assert done.output.split() == [f"{name}/step-time.png", f"{name}/step-time.svg"]
        images.append((terminal.folder / name / "step-time.svg").read_bytes())
    assert images[0] != images[1] == images[2]
    options = ["--highlight", "misbehaving:well", "--highlight", "misbehaving:wel,misbehaving:nan"]
    error = assert_one_line(terminal("plot", "step-time", finished.folder, *options), 2)
    assert error.startswith("unknown arm 'misbehaving:wel' in these runs; did you mean ")
    assert "misbehaving:well" in error


def test_check_fails_where_an_arm_is_wrong_and_tells_scripts_why(terminal: Terminal) -> None:
    suite = write_suite(terminal.folder / "two.toml", "well", "nan")
    done = terminal("check", suite, "--json", "--phases", "inference")
    assert done.code == 1
    rows = {row["arm"]: row for row in json.loads(done.output)}
    assert rows["misbehaving:well"]["status"] == "ok"
    assert rows["misbehaving:well"]["output_error"] < 1e-6
    assert rows["misbehaving:nan"]["status"] == "wrong"
    assert "not finite" in rows["misbehaving:nan"]["reason"]


def test_screens_that_no_one_reads_stop_no_run(terminal: Terminal) -> None:
    suite = write_suite(terminal.folder / "unread.toml", "well")
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [*COMMAND, "run", suite, "--phases", "inference", "--results", "unread"],
        cwd=terminal.folder,
        env=terminal.environment,
        stdin=subprocess.DEVNULL,
        stdout=write,
        stderr=write,
        check=False,
    )
    os.close(write)
    (run,) = (terminal.folder / "unread").iterdir()
    assert done.returncode == 0
    assert set(store.statuses(store.open_run(run)).values()) == {"ok"}
    assert (run / "report" / "report.md").is_file()


def test_a_run_without_one_good_cell_fails(terminal: Terminal) -> None:
    suite = write_suite(terminal.folder / "bad.toml", "nan")
    done = terminal("run", suite, "--phases", "inference", "--results", "bad")
    (run,) = (terminal.folder / "bad").iterdir()
    assert done.code == 1
    line = f"levelfield: no cell of {run.relative_to(terminal.folder)} is ok; its report says why"
    assert done.errors.splitlines()[-1] == line
    assert (run / "report" / "report.md").is_file()


def test_check_keeps_the_logs_of_what_failed_and_names_them(terminal: Terminal) -> None:
    suite = write_suite(terminal.folder / "raising.toml", "well", "raises-in-step")
    done = terminal("check", suite, "--json", "--phases", "inference")
    logs = {row["arm"].partition(":")[2]: row["log"] for row in json.loads(done.output)}
    assert logs["well"] is None
    log = Path(logs["raises-in-step"])
    assert "ValueError: shapes (3,4)" in log.read_text()
    assert [path.name for path in log.parent.iterdir()] == [log.name]
    shown = terminal("check", suite, "--phases", "inference").output
    assert "computing.py:" in shown
    named = re.search(r"\(log: (.*)\)", shown)
    assert named
    assert Path(named[1]).is_file()


def test_check_timed_finds_what_only_a_timed_process_does(terminal: Terminal) -> None:
    suite = write_suite(terminal.folder / "later.toml", "well", "idle-later")
    ends = []
    for options in ([], ["--timed"]):
        done = terminal("check", suite, "--json", "--phases", "training", *options)
        rows = {row["arm"].partition(":")[2]: row for row in json.loads(done.output)}
        assert rows["well"]["status"] == "ok"
        ends.append((done.code, rows["idle-later"]["status"], rows["idle-later"]["reason"]))
    plain, timed = ends
    assert plain == (0, "ok", "")
    assert timed[:2] == (1, "wrong")
    assert timed[2].startswith("after its last slice: ")


def test_check_succeeds_where_all_is_right_and_measures_nothing(terminal: Terminal) -> None:
    suite = write_suite(terminal.folder / "two.toml", "well", "nan")
    done = terminal("check", suite, "--arms", "misbehaving:well", "--phases", "inference")
    assert done.code == 0, done
    assert "misbehaving:well" in done.output
    assert "nan" not in done.output
    assert not (terminal.folder / "results").exists()


@pytest.mark.parametrize("command", ["history", "compare", "report"])
def test_a_torn_last_line_is_warned_of_once(
    terminal: Terminal, tmp_path: Path, command: str
) -> None:
    runs = [session(tmp_path, name, seed) for seed, name in enumerate(("a", "b"))]
    with (runs[0] / "records.jsonl").open("a") as file:
        file.write('{"record"')
    done = terminal(command, *runs)
    assert done.code == 0, done
    lines = [line for line in done.errors.splitlines() if "torn" in line]
    assert lines == [f"levelfield: {runs[0]}/records.jsonl: dropped a torn last record of 9 bytes"]


def test_export_writes_a_file_that_others_read(terminal: Terminal) -> None:
    file = terminal.folder / "lenet5.onnx"
    done = terminal("export", "lenet5", "--preset", "tiny", "--onnx", str(file))
    assert (done.code, done.errors) == (0, "")
    assert "image -> logits" in done.output
    proto = onnx.load(file)
    onnx.checker.check_model(proto, full_check=True)
    assert (proto.producer_name, proto.producer_version) == ("levelfield", version("levelfield"))
    assert proto.doc_string == "LeNet-5 (LeCun et al. 1998, modern form)"
    assert {entry.key: entry.value for entry in proto.metadata_props} == {
        "model": "lenet5",
        "preset": "tiny",
        "phase": "inference",
        "seed": "0",
        "attempt": "0",
    }
    shape = proto.graph.input[0].type.tensor_type.shape.dim
    assert [dimension.dim_param or dimension.dim_value for dimension in shape] == [
        "batch",
        1,
        16,
        20,
    ]


def test_a_batch_that_no_runtime_has_is_a_mistake_of_usage(terminal: Terminal) -> None:
    done = terminal("export", "mlp", "--onnx", "x.onnx", "--batch", str(10**14))
    assert done.code == 2
    assert "1048576" in done.errors


def test_a_working_folder_that_is_gone_costs_one_line(terminal: Terminal) -> None:
    begin = 'mkdir "$1" && cd "$1" && rmdir "$1" && shift && exec "$@"'
    command = ["sh", "-c", begin, "sh", str(terminal.folder / "gone"), *COMMAND]
    done = subprocess.run(
        [*command, "list", "--python", "torch=bin/python"],
        env=terminal.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    message = assert_one_line(Done(done.returncode, done.stdout, done.stderr), 2)
    assert message == "the working folder is gone; change to one that exists: cd"


def test_what_the_system_refuses_for_no_path_names_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(**options: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr("levelfield.harness.cli.application.app", refused)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # which answer() replaces
    assert answer() == 1
    line = "levelfield: the system refused: Cannot allocate memory; mend that, and type the command"
    assert capsys.readouterr().err == f"{line} again\n"


def test_a_width_of_zero_is_no_width(terminal: Terminal) -> None:
    done = subprocess.run(
        [*COMMAND, "list", "suites"],
        env={**terminal.environment, "COLUMNS": "0"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "quick" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["report", ""], "the argument after report is empty"),
        (["report", "run", "--output", ""], "the argument after --output is empty"),
        (["plot", "heat", "run", "--output="], "the argument after --output is empty"),
        ([""], "the argument is empty"),
    ],
)
def test_an_empty_argument_is_refused_for_it_would_be_the_working_folder(
    terminal: Terminal, tmp_path: Path, arguments: list[str], words: str
) -> None:
    done = subprocess.run(
        [*COMMAND, *arguments],
        cwd=tmp_path,
        env=terminal.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert words in assert_one_line(Done(done.returncode, done.stdout, done.stderr), 2)
    assert not [*tmp_path.iterdir()]


def test_settings_that_matplotlib_cannot_read_cost_one_line(
    terminal: Terminal, finished: Finished, tmp_path: Path
) -> None:
    (tmp_path / "matplotlibrc").write_bytes(b"\xff\n")
    done = subprocess.run(
        [*COMMAND, "plot", "ratio", finished.folder.absolute(), "--output", "charts"],
        cwd=tmp_path,
        env=terminal.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    message = assert_one_line(Done(done.returncode, done.stdout, done.stderr), 2)
    assert "mend or rename the file matplotlibrc of this folder" in message


@pytest.mark.parametrize("named", [True, False])
def test_settings_of_matplotlib_that_never_end_are_refused(
    terminal: Terminal, finished: Finished, tmp_path: Path, named: bool
) -> None:
    settings = tmp_path / "settings"
    settings.mkdir()
    os.mkfifo(settings / "matplotlibrc")
    done = subprocess.run(
        [*COMMAND, "plot", "ratio", finished.folder.absolute(), "--output", "charts"],
        cwd=tmp_path if named else settings,
        env={**terminal.environment, **({"MATPLOTLIBRC": str(settings)} if named else {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,  # the fault is to wait for ever; the refusal takes a second
    )
    message = assert_one_line(Done(done.returncode, done.stdout, done.stderr), 2)
    assert "matplotlibrc, which is no regular file" in message


def test_ctrl_c_before_anything_is_imported_prints_nothing(terminal: Terminal) -> None:
    interrupted = (
        "import builtins, os, signal\n"
        "from levelfield.harness.cli import main\n"
        "former = builtins.__import__\n"
        "def first(*arguments, **more):\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    return former(*arguments, **more)\n"
        "builtins.__import__ = first\n"
        "main()\n"
    )
    done = subprocess.run(
        ["env", "--default-signal=INT", sys.executable, "-c", interrupted],
        env=terminal.environment,
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, b"", b"")


def test_export_takes_the_parameters_of_a_suites_case(terminal: Terminal) -> None:
    """The first draw of this seed is near a tie, so the suite's case is the second."""
    suite, file = terminal.folder / "later.toml", terminal.folder / "later.onnx"
    suite.write_text(
        'title = "A later draw"\nmodels = ["lenet5"]\narms = ["reference:numpy"]\n'
        'presets = ["tiny"]\noptimizers = ["sgd"]\nbatches = [64]\nseed = 8\n'
    )
    words = ("export", "lenet5", "--preset", "tiny", "--onnx", str(file), "--suite", str(suite))
    assert terminal(*words).code == 0
    arrays = {
        initializer.name: to_array(initializer) for initializer in onnx.load(file).graph.initializer
    }
    for attempt, same in ((0, False), (1, True)):
        kernel = reference.draw_case("lenet5", "tiny", 8, attempt=attempt).parameters[
            "conv1/kernel"
        ]
        result = any(
            np.array_equal(np.sort(kernel, None), np.sort(a, None)) for a in arrays.values()
        )
        assert result is same
    assert_one_line(terminal(*words, "--seed", "1"), 2)
    message = assert_one_line(terminal(*words, "--batch", "9"), 2)
    assert message.endswith("has no batch 9; it has 64")


def test_what_computes_in_float32_alone_is_not_asked_for_less(terminal: Terminal) -> None:
    suite = write_suite(terminal.folder / "two.toml", "well", "nan")
    done = terminal("check", suite, "--json", "--numeric", "int8")
    assert done.code == 0  # unsupported is no mistake of an arm
    rows = json.loads(done.output)
    assert {row["status"] for row in rows} == {"unsupported"}
    assert "misbehaving:well computes in float32 only" in {row["reason"] for row in rows}


def test_a_full_disk_costs_one_line_that_says_how_to_go_on(
    terminal: Terminal, finished: Finished, tmp_path: Path
) -> None:
    copy = tmp_path / "copy of a run"
    shutil.copytree(finished.folder, copy, ignore=shutil.ignore_patterns("report"))
    (copy / "records.jsonl").unlink()
    (copy / "records.jsonl").symlink_to("/dev/full")
    message = assert_one_line(terminal("run", "--resume", copy), 1)
    assert "the disk is full" in message
    assert message.endswith(f"levelfield run --resume '{copy}'")
