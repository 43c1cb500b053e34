"""``python -m reference MODEL PRESET BATCH SEED FOLDER PHASES [OPTIMIZER ...]``: case and answers.

The program writes case.npz and answers.npz into the folder. It computes the answers that the
phases (separated by commas) and the optimisers need.

The host runs this program in a separate process, so that it never imports a framework itself.
"""

import sys
from contextlib import redirect_stdout
from pathlib import Path

from levelfield.reference.answers import write_answers
from levelfield.reference.case import write_case
from levelfield.reference.settled import settled_case


def main(arguments: list[str]) -> None:
    """Draw the case, solve it and write the files."""
    model, preset, batch, seed, folder, phases, *optimizers = arguments
    with redirect_stdout(sys.stderr):  # what a definition prints is no answer
        case, answers = settled_case(
            model,
            preset,
            int(seed),
            batch=int(batch),
            optimizers=optimizers,
            phases=phases.split(","),
        )
        write_case(case, Path(folder) / "case.npz")
        write_answers(answers, Path(folder) / "answers.npz")
    print(case.attempt)  # the number of the draw of this seed


if __name__ == "__main__":
    main(sys.argv[1:])
