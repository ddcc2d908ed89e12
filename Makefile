# Every target is one `python -m pipelines COMMAND`, which owns the options' defaults; `make help` lists targets and
# variables, `.venv/bin/python -m pipelines COMMAND --help` all options.
SHELL := /bin/bash
PYTHON := .venv/bin/python
RUN := @$(PYTHON) -m pipelines

# Variables, and the option of the commands that each stands for. One that is empty is not passed.
option.IMAGES := --images## images of stage 1: a folder, COCO JSON or text list of paths (data/demo/unlabeled)
option.SHARDS := --shards## a shard set: a directory, for proposals and fetch also a URL as s3://bucket/shards (shards)
option.TO := --to## directory to copy a shard set to (shards)
option.BACKBONE := --backbone## lite0_imagenet, densecl_r50, swav_r50, mocov2_r50, imagenet_r50, or any of timm's
option.WEIGHTS := --weights## file of the backbone's weights
option.GENERATOR := --generator## saliency, freemask, random or import (saliency)
option.WORKERS := --workers## Ray actors (one per GPU or core)
option.DEVICE := --device## cpu or cuda (the GPU, if there is one)
option.GPUS := --gpus## processes of training (1)
option.MODEL := --model## a file of configs/models (knet_lite0)
option.DATASET := --dataset## demo, ctw1500, cityscapes, coco10, coco5, COCO JSON or a labelme folder (demo)
option.ROOT := --data-root## folder of the dataset (data/DATASET)
option.INIT := --init## sp, pseudo, imagenet, densecl, swav, mocov2, coco, scratch or a file (sp)
option.PROMPTS := --prompts## on or off (on)
option.CHECKPOINT := --checkpoint## a checkpoint, or the work directory of a run
option.WORK_DIR := --work-dir## where a run, or everything, goes
option.OUT := --out## the file to write
option.SIMILAR := --similar## a proposal, as image_id:row
option.THRESHOLD := --threshold## similarity from which images are duplicates (0.8)
option.CLASSES := --classes## number of pseudo classes (80)
option.LABELS := --labels## COCO JSON of the images in SHARDS
option.SCALE := --scale## demo or paper (demo)
option.SEEDS := --seeds## seeds of an experiment, as "0 1 2" (0)
option.JOBS := --jobs## runs of an experiment at once (1)
# N, PICTURE, PART and RUNS are passed as they are, OPTS last: OPTS="--name value" gives any further option.

# $(call given,NAMES): the options of those variables that have a value; $(call several,NAME): of several values.
given = $(foreach name,$(1),$(if $(strip $($(name))),$(option.$(name)) "$(strip $($(name)))"))
several = $(if $(strip $($(1))),$(option.$(1)) $(foreach word,$($(1)),"$(word)"))
experiment = $(call given,SCALE JOBS WORK_DIR GPUS DEVICE) $(call several,SEEDS)

# What each picture and each benchmark takes.
PICTURE ?= curves
PART ?= proposals
of.curves := OUT
of.activations := DATASET ROOT DEVICE OUT
of.results := SHARDS WORK_DIR DEVICE OUT
of.proposals := IMAGES BACKBONE WEIGHTS WORKERS DEVICE
of.training := MODEL DEVICE
of.prompts := WORK_DIR CHECKPOINT DEVICE

.DEFAULT_GOAL := help
.PHONY: help setup lock demo data proposals fetch inspect duplicates cluster recall pretrain finetune evaluate draw
.PHONY: table figure bench report test lint

help: ## list targets and variables
	@awk -F '## ' '/^[a-z]+:.*## / { sub(/:.*/, "", $$1); printf "  make %-11s %s\n", $$1, $$2 }' Makefile
	@printf '\nVariables, as in `make proposals IMAGES=images SHARDS=shards` (defaults in brackets):\n\n'
	@awk -F '## ' '/^option\./ { gsub(/option\.| :=.*/, "", $$1); printf "  %-11s %s\n", $$1, $$2 }' Makefile
	@printf '  %-11s %s\n' OPTS 'further options of the command, which `$(PYTHON) -m pipelines COMMAND --help` lists'

setup: ## build .venv (once; MMCV compiles for 8-12 minutes on two cores the first time)
	@python3 -m pipelines.setup

UV_COMPILE := .venv/bin/uv pip compile pyproject.toml --extra dev --extra build --universal --python-version 3.11
lock: ## pin every dependency of pyproject.toml in requirements.lock
	$(UV_COMPILE) --generate-hashes --no-header --no-annotate --quiet --output-file requirements.lock

demo: setup ## the whole job at a size for two cores, about 12 minutes -> work_dirs/demo
	$(RUN) demo $(call given,WORK_DIR) $(OPTS)

data: setup ## check, convert and draw a labelled dataset: DATASET ROOT
	$(RUN) data $(call given,DATASET ROOT) $(OPTS)

proposals: setup ## stage 1, images -> shards: IMAGES SHARDS BACKBONE WEIGHTS GENERATOR WORKERS DEVICE
	$(RUN) proposals $(call given,IMAGES SHARDS BACKBONE WEIGHTS GENERATOR WORKERS DEVICE) $(OPTS)

fetch: setup ## copy a shard set from a URL to a directory, each shard verified: SHARDS TO
	$(RUN) fetch $(call given,SHARDS TO) $(OPTS)

inspect: setup ## verify shards, print what they hold, draw a contact sheet or similar proposals: SHARDS SIMILAR OUT
	$(RUN) inspect $(call given,SHARDS SIMILAR OUT) $(OPTS)

duplicates: setup ## find images that are nearly the same: SHARDS THRESHOLD OUT
	$(RUN) duplicates $(call given,SHARDS THRESHOLD OUT) $(OPTS)

cluster: setup ## give every proposal a pseudo class by k-means: SHARDS CLASSES
	$(RUN) cluster $(call given,SHARDS CLASSES) $(OPTS)

recall: setup ## class-agnostic AP, AP50 and AR@20 of shard sets: LABELS SHARDS="dir dir"
	$(RUN) recall $(call given,LABELS) $(call several,SHARDS) $(OPTS)

pretrain: setup ## pre-train with Saliency Prompt: MODEL SHARDS PROMPTS WEIGHTS WORK_DIR GPUS DEVICE
	$(RUN) pretrain $(call given,MODEL SHARDS PROMPTS WEIGHTS WORK_DIR GPUS DEVICE) $(OPTS)

finetune: setup ## fine-tune and evaluate: DATASET ROOT MODEL INIT CHECKPOINT WEIGHTS WORK_DIR GPUS DEVICE
	$(RUN) finetune $(call given,MODEL DATASET INIT CHECKPOINT WEIGHTS ROOT WORK_DIR GPUS DEVICE) $(OPTS)

evaluate: setup ## AP of masks and boxes: WORK_DIR of a run, or MODEL DATASET ROOT CHECKPOINT; OUT DEVICE
	$(RUN) evaluate $(call given,WORK_DIR MODEL DATASET ROOT CHECKPOINT OUT DEVICE) $(OPTS)

draw: setup ## a picture: PICTURE=curves RUNS="A=dir B=dir,dir", activations RUNS DATASET, results SHARDS WORK_DIR
	$(RUN) draw $(PICTURE) $(RUNS) $(call given,$(of.$(PICTURE))) $(OPTS)

table: setup ## a table of the paper, its missing runs made first: N=1..7 SCALE SEEDS JOBS WORK_DIR GPUS DEVICE
	$(RUN) table $(N) $(experiment) $(OPTS)

figure: setup ## a figure of the paper, its missing runs made first: N=3..6 SCALE SEEDS JOBS WORK_DIR GPUS DEVICE
	$(RUN) figure $(N) $(experiment) $(OPTS)

bench: setup ## measure a part: PART=proposals IMAGES BACKBONE|training MODEL|streaming|prompts WORK_DIR; DEVICE
	$(RUN) bench $(PART) $(call given,$(of.$(PART))) $(OPTS)

report: setup ## one HTML page of all runs, shard sets, tables and figures: WORK_DIR OUT
	$(RUN) report $(call given,WORK_DIR OUT) $(OPTS)

test: setup ## the test suite; OPTS="-k name" runs a part
	@$(PYTHON) -m pytest $(OPTS)

lint: setup ## ruff (format and rules), mypy and the import contract
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m mypy
	@.venv/bin/lint-imports
