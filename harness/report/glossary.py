"""The words of this project, each with its meaning: for pages, and for the documentation."""

from __future__ import annotations

GLOSSARY = {
    "A/A": "the same arm once more in processes of its own (its twin); the apparent difference"
    " between the two is the error bar of the session",
    "arm": "a framework in one mode, such as torch:eager",
    "audit": "a block in which each arm runs alone; its times enter no verdict",
    "block": "one life of a set of fresh processes, one per arm; blocks are the replicates of the"
    " statistics",
    "break-even": "the number of steps at which two arms have taken equally long in total",
    "canary": "a short fixed loop that the harness times between slices, to see whether the"
    " processor's own speed changes",
    "case": "the arrays that every arm gets (parameters, input sets) and the answers that it must"
    " give",
    "cell": "one row of the plan: one arm, model, preset, phase, optimiser, batch and number of"
    " threads",
    "closing gate": "the second proof, in the process that was timed, after its last slice",
    "cold": "with empty caches, as on the first day",
    "comparison": "the cells that differ in nothing but the arm",
    "disturbed": "of a round: other load was on the measured cores; it counts for less, and another"
    " round is measured",
    "fastest set": "the arms that no other arm is proved to beat",
    "fence": "the call that returns when all work of an arm is done",
    "foreign load": "work of other programs on the measured cores",
    "gate": "the proof that an arm's answers agree with the reference",
    "inconclusive": "of a pair of arms: more blocks are needed to say which is faster",
    "lesson": "a short training on real data, to compare the accuracy that arms reach",
    "look": "a number of blocks at which verdicts may be taken",
    "margin": "the difference that counts as none: at least the session's own error",
    "preset": "the sizes of a model: tiny, small or paper",
    "provisional": "measured in one session; a second session confirms it or not",
    "roofline": "the best that this machine can do for a step, by its measured rates of arithmetic"
    " and of memory",
    "round": "one pass over all arms of a comparison within a block",
    "slice": "a short timed run of many steps, about 50 ms",
    "stolen": "time that the hypervisor gave to other machines",
    "suite": "a TOML file that says what is compared",
    "tie": "of a pair of arms: their difference is proved to be within the margin",
    "unsupported": "the framework cannot do it, for the reason stated",
    "void": "a comparison whose own controls failed: its times are shown and rank nothing",
    "wrong": "the answers differ from those of the reference by more than rounding; no time is"
    " shown",
}
