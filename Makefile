# Everything a person does with a clone: `make help` lists it. The first target that needs the environment makes it.

VENV ?= .venv
# What is drawn where DATA is left out: real faces, whose generator pip fetches once. All else is about avatars then.
SHOWN := $(if $(filter undefined,$(origin DATA)),faces,$(DATA))
DATA ?= avatars
CONDITION ?= seg
SHOTS ?= 1
ARGS ?=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup config train-generator train-rearranger train-mapper train-judge generate demo evaluate sweep train-all check-gpu test test-slow lint format constraints clean

# The environment is whole when this file is there: it is made last, and again whenever pyproject.toml or
# constraints.txt change. An interrupted set-up has none, so the next call of make carries on.
STAMP := $(VENV)/.sisug-is-installed
BIN := $(VENV)/bin

# `sisug fit` with the layers of stage 1: DATA is a preset, or the file of a generator. Avatars and faces have settings of
# their own; all others share those of file.yaml.
# The shell takes names apart, since make's own functions do so at spaces.
layer = $(shell if [ -f "experiments/$(1)/$(DATA).yaml" ]; then echo "experiments/$(1)/$(DATA).yaml"; else echo "$(2)"; fi)
NAME := $(shell basename -- "$(DATA)" | sed 's/\.[^.]*$$//')
STAGE1 = $(call layer,rearranger,experiments/rearranger/file.yaml)
ifneq ($(filter .safetensors .pkl .pt .pth .ckpt,$(suffix $(DATA))),)
GENERATOR =
LAYERS = --config experiments/base.yaml --config $(STAGE1) --model.init_args.generator "$(DATA)" \
  --run.name "rearranger-$(NAME)"
else
# A layer of stage 1 that stands without a generator's layer names its generator itself.
GENERATOR = $(shell if [ -f "experiments/generator/$(DATA).yaml" ] || [ ! -f "experiments/rearranger/$(DATA).yaml" ]; \
  then echo "experiments/generator/$(DATA).yaml"; fi)
LAYERS = --config experiments/base.yaml --config $(STAGE1) $(addprefix --config ,$(GENERATOR))
endif

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z%-]+:.*## / {sub(/%/, "NAME", $$1); printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  Variables: DATA=$(DATA), CONDITION=$(CONDITION), SHOTS=$(SHOTS), ARGS= (options for sisug), VENV=$(VENV)."
	@echo "  DATA of train-rearranger: $(sort $(notdir $(basename $(wildcard experiments/generator/*.yaml))) faces),"
	@echo "  or a generator's file (.safetensors, .pkl, .pt, .pth, .ckpt); of train-generator: avatars, or a folder of pictures."
	@echo "  CONDITION: seg, scribble, edges, sketch, depth. ANNOTATIONS=FOLDER has labels of your own (sisug annotate export)."
	@echo "  PROTOCOL-DATA of evaluate: $(notdir $(basename $(wildcard experiments/evaluate/*.yaml)))."
	@echo "  SWEEP: $(notdir $(basename $(wildcard experiments/sweeps/*.yaml))); COUNT=$(COUNT) runs in all, those of earlier calls included."
	@echo "  bench-NAME: NAME is one of: $(notdir $(basename $(wildcard benchmarks/*.py)))."
	@echo "  Example: make train-rearranger ARGS=\"--ckpt_path last\" continues an interrupted run."

setup: $(STAMP)  ## Make the environment (the other targets do so by themselves)

train-rearranger: $(GENERATOR) $(STAMP)  ## Stage 1: train the rearranger on a preset or a generator file
	$(BIN)/sisug fit $(LAYERS) $(ARGS)

# The rearranger that ships for avatars, else the newest run of stage 1 on DATA. With ANNOTATIONS, a folder of
# `sisug annotate export`, the labels are yours.
ifneq ($(filter $(DATA),avatars faces),)
REARRANGER ?= $(DATA)
else
REARRANGER ?= $(shell ls -t "runs/rearranger-$(NAME)"/version_*/checkpoints/last.ckpt 2> /dev/null | head -n 1)
endif
STAGE2 = $(call layer,mapper,experiments/mapper/file.yaml)

train-mapper: $(STAMP)  ## Stage 2: train the mapper of CONDITION from SHOTS labels
	@if [ -z "$(REARRANGER)" ]; then \
	  echo "error: no rearranger of $(DATA) in runs/. Run make train-rearranger DATA='$(DATA)' first, or name one: REARRANGER=FILE" >&2; exit 2; fi
	$(BIN)/sisug fit --config experiments/base.yaml --config $(STAGE2) --model.init_args.rearranger "$(REARRANGER)" \
	  --model.init_args.condition $(CONDITION) $(if $(filter faces,$(DATA)),$(if $(filter file,$(origin SHOTS)),,--model.init_args.annotated $(SHOTS)),--model.init_args.shots $(SHOTS)) \
	  $(if $(ANNOTATIONS),--model.init_args.annotations "$(ANNOTATIONS)") \
	  --run.name "mapper-$(NAME)-$(CONDITION)-$(SHOTS)" $(ARGS)

ifeq ($(origin DATA)$(origin MAPPER)$(origin INPUT),fileundefinedundefined)
INSTEAD = || { echo "Faces could not be drawn, as said above; here are the avatars that ship." >&2; \
  $(BIN)/sisug generate --mapper avatars-seg --input examples/masks --out "$(OUT)" $(ARGS); }
endif
MAPPER ?= $(SHOWN)-seg
INPUT ?= $(if $(filter faces%,$(MAPPER)),examples/faces/masks,examples/masks)
OUT ?= runs/generated

generate: $(STAMP)  ## Images of the drawings INPUT by MAPPER, into OUT
	@$(BIN)/sisug generate --mapper "$(MAPPER)" --input "$(INPUT)" --out "$(OUT)" $(ARGS) $(INSTEAD)

demo: $(STAMP)  ## A page in the browser to draw on: the picture follows each stroke
	$(BIN)/sisug demo $(ARGS)

PROTOCOL ?= few-shot

evaluate: $(STAMP)  ## The table of PROTOCOL on DATA, with a report; goes on where it was interrupted
	$(BIN)/sisug evaluate --config experiments/evaluate/$(PROTOCOL)-$(DATA).yaml $(ARGS)

# DATA is a preset's name, or a folder of pictures.
OWN_PICTURES := $(call layer,train-generator,)
ifneq ($(OWN_PICTURES),)
PICTURES = --config $(OWN_PICTURES)
else
PICTURES = --config experiments/train-generator/images.yaml --data.init_args.folder "$(DATA)" \
  --run.name "generator-$(shell basename -- "$$(cd -- "$(DATA)" 2> /dev/null && pwd || echo "$(DATA)")")"
endif

train-generator: $(STAMP)  ## Train a StyleGAN2 on DATA: a preset, or your own folder of pictures
	$(BIN)/sisug fit --config experiments/base.yaml $(PICTURES) $(ARGS)

# With WANDB=1 the sweep is W&B's (after `wandb login`), and this machine works as one agent of it; else it runs here alone.
SWEEP ?= rearranger
COUNT ?= 20
# Of a folder of pictures the file is generator-images.yaml, which takes the folder from the environment.
SWEEP_FILE ?= $(shell for name in "$(SWEEP)-$(NAME)" "$(if $(filter avatars,$(DATA)),$(SWEEP))" "$(SWEEP)-images"; do \
  if [ -f "experiments/sweeps/$$name.yaml" ]; then echo "experiments/sweeps/$$name.yaml"; exit; fi; done; \
  echo "experiments/sweeps/$(SWEEP)-$(NAME).yaml" | tr " " _)

sweep: export PATH := $(abspath $(BIN)):$(PATH)
sweep: export DATA := $(DATA)
sweep: $(SWEEP_FILE) $(STAMP)  ## Search for better settings of SWEEP (rearranger, mapper, generator) on DATA, COUNT runs
ifdef WANDB
	set -e; id=$$(wandb sweep "$(SWEEP_FILE)" 2>&1 | tee /dev/stderr | sed -n 's/.*wandb agent //p'); \
	test -n "$$id"; wandb agent --count $(COUNT) "$$id"
else
	sisug sweep "$(SWEEP_FILE)" --count $(COUNT) --out "runs/sweep-$(SWEEP)-$(NAME)" $(ARGS)
endif

MINUTES ?= 10

train-all: $(STAMP)  ## Generator (avatars), rearranger and mappers of DATA in MINUTES, best checkpoints exported
	$(BIN)/sisug train-all --data "$(DATA)" --minutes $(MINUTES) $(ARGS)

# On a machine without network: WHEELS is a folder with the wheels of constraints.txt (`pip download`, on another machine).
ifdef WHEELS
export PIP_NO_INDEX := 1
export PIP_FIND_LINKS := $(abspath $(WHEELS))
endif

check-gpu: $(STAMP)  ## Everything on this machine's GPUs in one table, ten minutes at most; ARGS=--cpu tries it without one
	$(BIN)/python benchmarks/check-gpu.py $(ARGS)

train-judge: experiments/judge/$(DATA).yaml $(STAMP)  ## Train the segmenter that scores layouts
	$(BIN)/sisug fit --config experiments/base.yaml --config experiments/judge/$(DATA).yaml $(ARGS)

config: $(GENERATOR) $(STAMP)  ## Print the settings that train-rearranger would use, layers merged
	@$(BIN)/sisug fit $(LAYERS) $(ARGS) --print_config

# Generators in processes of their own: after all the other folders, the training in test_commands.py ends its worker
# without a word, for a reason that is not found yet.
PYTEST = $(BIN)/pytest -n auto --maxprocesses 8 --dist worksteal

test: lint  ## Lint, types and the fast tests, on all cores
	$(PYTEST) $(if $(ARGS),$(ARGS),--ignore=tests/generators)
	$(if $(ARGS),,$(PYTEST) tests/generators)

test-slow: $(STAMP)  ## The slow tests: training to a result, several processes
	$(BIN)/pytest -m slow $(ARGS)

lint: $(STAMP)  ## Style, format and types, without changing anything
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)  ## Put the code into the house's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench-%: benchmarks/%.py $(STAMP)  ## Measure the throughput of NAME on this machine
	$(BIN)/python $< $(ARGS)

constraints: $(STAMP)  ## Write constraints.txt from the environment, after trying out newer versions in it
	@{ sed -n '/^#/p' constraints.txt; \
	   $(BIN)/python -m pip freeze --all --exclude-editable | grep -v -E -e '^(pip|wheel)==' -e ' @ '; } > constraints.txt.tmp
	mv constraints.txt.tmp constraints.txt

clean:  ## Remove caches and build outputs (runs and the environment stay)
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache *.egg-info
	find sisug tests -name __pycache__ -type d -prune -exec rm -rf {} +

experiments/%.yaml:
	@echo "error: there is no $@. DATA is one of: $(notdir $(basename $(wildcard $(@D)/*.yaml)))" >&2; exit 2

# A virtual environment is made anew where its Python does not start, as after an upgrade of the system's Python.
$(STAMP): pyproject.toml constraints.txt
	@set -e; python=; \
	if ! $(BIN)/python -m pip --version > /dev/null 2>&1; then \
	  for name in python3.11 python3.12 python3.13 python3; do \
	    if $$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' > /dev/null 2>&1; then python=$$name; break; fi; \
	  done; \
	  if [ -z "$$python" ]; then \
	    echo "error: sisug needs Python 3.11 or newer; none of python3.11, python3.12, python3.13, python3 is. Install one and run make again." >&2; \
	    exit 2; \
	  fi; \
	  echo "Making the environment $(VENV) with $$($$python --version)"; \
	  $$python -m venv --clear $(VENV); \
	fi
	@echo "Installing sisug and the tested versions of what it needs (once; several GB, some minutes)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@
