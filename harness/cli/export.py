"""``levelfield export``: writes a definition as a file that other runtimes read."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from levelfield import reference
from levelfield.harness.cli.options import ModelsFromOption
from levelfield.harness.cli.terminal import terminal
from levelfield.harness.errors import BadInput
from levelfield.harness.plan.suite import add_folders, load_suite
from levelfield.harness.records.store import write_atomically, writing_failed
from levelfield.reference.errors import UnknownName
from levelfield.reference.presets import MOST_BATCH
from levelfield.reference.spec import Model

EXPORTED = ("inference", "generation", "encoding")


def export_command(
    model: Annotated[
        str, typer.Argument(help="Name of a model, as levelfield list models shows it.")
    ],
    onnx: Annotated[Path, typer.Option(metavar="FILE", help="Path of the ONNX file.")],
    preset: Annotated[str, typer.Option(help="Size: tiny, small or paper.")] = "small",
    phase: Annotated[
        str, typer.Option(help="inference, generation (a step with its cache) or encoding.")
    ] = "inference",
    batch: Annotated[
        int | None,
        typer.Option(
            min=1, max=MOST_BATCH, help="Examples per call. The file leaves it open if not given."
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of the parameters. Default: 0.")
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option(help="Take the parameters and statistics of this suite's case instead."),
    ] = None,
    models_from: ModelsFromOption = None,
) -> None:
    """Write a model's definition as an ONNX graph with the parameters that a seed draws.

    A suite's case may be a later draw of its seed, because draws near a tie are skipped. With
    --suite, the reference solves the case to find out which draw it is.
    """
    # onnx takes longer to load than most commands take to run.
    from levelfield.reference.export import export_encoding, export_generation, export_inference

    add_folders(models_from or ())
    definition = reference.get(model)
    sizes = definition.sizes(preset)
    _check_phase(definition, phase)
    case = _case(model, preset, suite, seed, batch)
    if phase != "inference":
        export = export_generation if phase == "generation" else export_encoding
        exported = export(definition, sizes, case.parameters, batch=batch)
    else:
        exported = export_inference(definition, sizes, case.parameters, case.state, batch=batch)
    exported = exported.described(case, phase=phase, version=version("levelfield"))
    _write(onnx, exported.checked())
    graph = exported.proto.graph
    size = sum(array.size for array in exported.parameters().values())
    terminal().print(
        f"{onnx}: {model}/{preset} {phase}, {len(graph.node)} nodes,"
        f" {size:,} parameters and statistics;"
        f" {', '.join(array.name for array in graph.input)}"
        f" -> {', '.join(array.name for array in graph.output)}",
        soft_wrap=True,
    )


def _check_phase(definition: Model, phase: str) -> None:
    """Raise UnknownName or BadInput where the model has no such graph."""
    if phase not in EXPORTED:
        raise UnknownName("phase", phase, EXPORTED, where="--phase")
    name, generation = definition.name, definition.generation
    if phase != "inference" and generation is None:
        raise BadInput(f"{name} does not generate; leave out --phase, or export gpt2")
    if phase == "encoding" and generation is not None and generation.encode is None:
        raise BadInput(f"{name} has no encoder; export --phase generation, or transformer")


def _write(path: Path, data: bytes) -> None:
    if not path.name:
        raise BadInput("--onnx names no file; name one, such as --onnx mlp.onnx")
    try:
        write_atomically(path, data)
    except OSError as error:
        raise writing_failed(error, path, advice="name another file") from error


def _case(
    model: str, preset: str, suite: str | None, seed: int | None, batch: int | None
) -> reference.Case:
    """The case whose parameters are exported. Raises BadInput for a case that a suite lacks."""
    if suite is None:
        return reference.draw_case(model, preset, seed or 0, batch=1, sets=1)
    chosen = load_suite(suite)
    if seed is not None:
        raise BadInput("a suite has its own seed; leave out --seed or --suite")
    batch = chosen.batches[0] if batch is None else batch
    for name, value, known in (
        ("model", model, chosen.models),
        ("preset", preset, chosen.presets),
        ("batch", batch, chosen.batches),
    ):
        if value not in known:
            listed = ", ".join(map(str, known))
            raise BadInput(f"the suite {suite} has no {name} {value}; it has {listed}")
    case, _ = reference.settled_case(
        model,
        preset,
        chosen.seed,
        batch=batch,
        optimizers=chosen.optimizers,
        phases=chosen.phases,
    )
    return case
