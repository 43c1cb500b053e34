"""``python -m reference MODEL PRESET BATCH SEED FOLDER [OPTIMIZER ...]``: case and answers.

Writes case.npz and answers.npz into the folder, with the steps of the optimisers asked for.

The host runs this in a process of its own, so that it never imports a framework itself.
"""

import sys
from pathlib import Path

from reference.case import draw_case, run_jax, write_answers, write_case


def main(arguments: list[str]) -> None:
    """Draw, solve, write."""
    model, preset, batch, seed, folder, *optimizers = arguments
    case = draw_case(model, preset, int(seed), batch=int(batch))
    write_case(case, Path(folder) / "case.npz")
    write_answers(run_jax(case, optimizers=optimizers), Path(folder) / "answers.npz")


if __name__ == "__main__":
    main(sys.argv[1:])
