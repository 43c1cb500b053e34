"""``python -m reference MODEL PRESET BATCH SEED FOLDER PHASES [OPTIMIZER ...]``: case and answers.

Writes case.npz and answers.npz into the folder: the answers that the phases (separated by commas)
and the optimisers need.

The host runs this in a process of its own, so that it never imports a framework itself.
"""

import sys
from pathlib import Path

from reference.case import settled_case, write_answers, write_case


def main(arguments: list[str]) -> None:
    """Draw, solve, write."""
    model, preset, batch, seed, folder, phases, *optimizers = arguments
    case, answers = settled_case(
        model,
        preset,
        int(seed),
        batch=int(batch),
        optimizers=optimizers,
        phases=phases.split(","),
    )
    print(case.attempt)  # which draw of the seed it is
    write_case(case, Path(folder) / "case.npz")
    write_answers(answers, Path(folder) / "answers.npz")


if __name__ == "__main__":
    main(sys.argv[1:])
