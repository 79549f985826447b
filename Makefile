# r1lab. `make help` lists every target. Everything runs in .venv, made on the first call; a second call installs nothing.
#
#   make r1-zero TORCH_INDEX=https://download.pytorch.org/whl/cpu    the small CPU-only torch (Linux's default brings CUDA)
#   make r1-zero ARGS="--seed 1 --max_steps 40"                      any setting of the recipe, on the command line

PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
ARGS ?=
DATA_ARGS ?=
BIN := $(VENV)/bin
RUN := $(BIN)/python -m recipes
STAMP := $(VENV)/installed
export HF_HUB_OFFLINE ?= 1

.DEFAULT_GOAL := help
.PHONY: help install r1-zero r1 resume cold-start distill eval report base bench bench-verifiers test test-slow lint types clean

help:  ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP)  ## make .venv with everything that is needed (the other targets do it by themselves)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "r1lab needs Python 3.11 or newer, this is %s; set PYTHON=python3.11" % sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip
	$(BIN)/python -m pip install -q $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "torch==$$(sed -n 's/^torch==//p' constraints.txt)"
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[dev]"
	@touch $(STAMP)

r1-zero: $(STAMP)  ## train the shipped base by pure RL, on a CPU in minutes, and write runs/r1-zero/report.html
	$(RUN) rl --config recipes/micro/r1_zero.yaml $(ARGS)

r1: $(STAMP)  ## the whole of R1, stage by stage; a second call goes on (ARGS="--dry-run", "--from STAGE", "stage.key=value")
	$(RUN) pipeline --config $(or $(R1),recipes/micro/r1.yaml) $(ARGS)

resume: $(STAMP)  ## go on with the newest run of r1-zero from its last checkpoint
	$(RUN) rl --config recipes/micro/r1_zero.yaml --resume $(ARGS)

cold-start: $(STAMP)  ## gather long chains of the base and R1-Zero, and fine-tune the base on them: runs/cold-start/sft/model (Dev1)
	@test -d runs/r1-zero/model || $(MAKE) r1-zero
	$(RUN) cold_start --config recipes/micro/cold_start.yaml $(DATA_ARGS)
	$(RUN) sft --config recipes/micro/sft.yaml $(ARGS)

distill: $(STAMP)  ## make r1, then its student: fine-tuned on stage 3's data, beside RL alone (MODEL=another student)
	$(RUN) pipeline --config recipes/micro/distillation.yaml $(if $(MODEL),distilled.model_name_or_path=$(MODEL) \
		student-zero.model_name_or_path=$(MODEL) measure-student.model_name_or_path=$(MODEL)) $(ARGS)

eval: $(STAMP)  ## measure a model: MODEL=runs/r1-zero/model by R1's protocol (any path, any data set by ARGS)
	$(RUN) measure --config recipes/micro/measure.yaml $(if $(MODEL),--model_name_or_path $(MODEL)) $(ARGS)

report: $(STAMP)  ## write report.html of a run anew: RUN_DIR=runs/r1-zero
	$(RUN) report $(or $(RUN_DIR),runs/r1-zero)

base: $(STAMP)  ## pretrain the shipped base from nothing (minutes on a GPU, many hours on a CPU)
	$(RUN) pretrain --config recipes/micro/base.yaml $(ARGS)

bench: $(STAMP)  ## our engine beside TRL's: update, sampling, step (ARGS="--shape 1.5b --profile long")
	$(BIN)/python -m benchmarks.speed $(ARGS)

bench-verifiers: $(STAMP)  ## our answer checker beside math-verify and TRL's
	$(BIN)/python -m benchmarks.verifiers $(ARGS)

test: $(STAMP)  ## the tests, offline, in under five minutes on two cores
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal $(ARGS)

test-slow: $(STAMP)  ## the slower checks too
	$(BIN)/python -m pytest -m "slow or not slow" --timeout 1200 $(ARGS)

lint: $(STAMP)  ## style of the code
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: $(STAMP)  ## types of the public API
	$(BIN)/python -m mypy data rewards grpo recipes

clean:  ## remove the environment and caches; runs/ stays
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis *.egg-info
