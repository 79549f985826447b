"""`python -m recipes STAGE …` and `accelerate launch recipes STAGE …`: one door to every recipe."""

import sys
from pathlib import Path

# `accelerate launch recipes` runs this file as a script, with its own folder on the path instead of the project's.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

import runpy  # noqa: E402

STAGES = {
    "rl": "R1-Zero, and every GRPO stage",
    "cold_start": "cold-start data: long chains from the base, R1-Zero and elsewhere, filtered",
    "rejection": "the SFT data of stage 3: correct chains of a model, blended with general rows",
    "sft": "SFT on conversations: cold start, stage 3, distillation",
    "reward_models": "the reward models of preference RL, from preference pairs and safety labels",
    "scorecard": "a model's row in the table of stages",
    "stages_report": "the table of stages and the page of a pipeline: stages.json, report.html",
    "measure": "the evaluation protocol on any model and data set",
    "report": "report.html of a run",
    "pretrain": "the shipped base from nothing",
    "pipeline": "stages joined into one command that can be called again",
}


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in STAGES:
        width = max(map(len, STAGES))
        print("usage: python -m recipes STAGE --config FILE [--setting value …]\n")
        print("\n".join(f"  {name:{width}}  {what}" for name, what in STAGES.items()))
        raise SystemExit(0 if len(sys.argv) > 1 and sys.argv[1] in ("-h", "--help") else 2)
    stage = sys.argv.pop(1)
    runpy.run_module(f"recipes.{stage}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
