"""``python -m reference MODEL PRESET BATCH SEED FOLDER``: write case.npz and answers.npz there.

The host runs this in a process of its own, so that it never imports a framework itself.
"""

import sys
from pathlib import Path

from reference.case import draw_case, run_jax, write_answers, write_case


def main(arguments: list[str]) -> None:
    """Draw, solve, write."""
    model, preset, batch, seed, folder = arguments
    case = draw_case(model, preset, int(seed), batch=int(batch))
    write_case(case, Path(folder) / "case.npz")
    write_answers(run_jax(case), Path(folder) / "answers.npz")


if __name__ == "__main__":
    main(sys.argv[1:])
