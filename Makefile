# Every target is one `python -m pipelines COMMAND`, which owns the options' defaults; `make help` lists targets and
# variables, `.venv/bin/python -m pipelines COMMAND --help` all options.
SHELL := /bin/bash
PYTHON := .venv/bin/python

# Variables, and the option of the commands that each stands for. One that is empty is not passed.
option.IMAGES := --images## images of stage 1 or to predict: folder, COCO JSON or text list (data/demo/unlabeled)
option.SHARDS := --shards## a shard set: a directory, for proposals and fetch also a URL as s3://bucket/shards (shards)
option.TO := --to## directory to copy a shard set to (shards)
option.BACKBONE := --backbone## lite0_imagenet, dinov2_s, densecl_r50, swav_r50, mocov2_r50, imagenet_r50, or timm's
option.WEIGHTS := --weights## file of the backbone's weights
option.GENERATOR := --generator## saliency, merging, freemask, checkpoint, random or import (saliency)
option.OBJECTS := --objects## any, or small for many small objects, such as cells under the microscope (any)
option.WORKERS := --workers## stage 1, predict: Ray actors (one per GPU or core); training: processes that load data
option.DEVICE := --device## cpu or cuda (the GPU, if there is one)
option.GPUS := --gpus## processes of training (1)
option.MODEL := --model## a file of configs/models (knet_lite0)
option.DATASET := --dataset## demo, ctw1500, cityscapes, coco10, coco5, COCO JSON, labelme folder or data.yaml (demo)
option.ROOT := --data-root## folder of the dataset (data/DATASET)
option.INIT := --init## sp, pseudo, imagenet, densecl, swav, mocov2, coco, scratch or a file (sp)
option.PROMPTS := --prompts## on or off (on)
option.CHECKPOINT := --checkpoint## a checkpoint, or the work directory of a run
option.WORK_DIR := --work-dir## where a run, or everything, goes
option.OUT := --out## the file to write; a folder for prelabel, select, predict (prelabels, selected, predictions)
option.FORMAT := --format## coco, labelme, yolo; predict: also masks, pictures; export: onnx, torchscript, weights
option.SCORE := --score## lowest score of a mask to write or draw
option.TILES := --tiles## see images in tiles: off, auto or a side in pixels (auto; predict, evaluate: as trained)
option.SIMILAR := --similar## a proposal, as image_id:row
option.THRESHOLD := --threshold## similarity from which images are duplicates (0.8)
option.CLASSES := --classes## number of pseudo classes (80)
option.LABELS := --labels## COCO JSON of the images in SHARDS; select: also a labelme folder or data.yaml
option.SCALE := --scale## demo or paper (demo)
option.SEEDS := --seeds## seeds of an experiment, as "0 1 2" (0)
option.JOBS := --jobs## runs of an experiment at once (1)
# N (for select as --count), PICTURE, PART and RUNS are passed as they are.
# OPTS comes last: OPTS="--name value" gives any further option.

# The commands, and the variables that each takes.
takes.demo := WORK_DIR## the whole job at a size for two cores, about 10 minutes -> work_dirs/demo
takes.data := DATASET ROOT## check, convert and draw a labelled dataset
takes.proposals := IMAGES SHARDS BACKBONE WEIGHTS GENERATOR CHECKPOINT OBJECTS WORKERS DEVICE## images -> shards
takes.fetch := SHARDS TO## copy a shard set from a URL to a directory, each shard verified
takes.inspect := SHARDS LABELS SIMILAR OUT## verify shards, print what they hold, draw a contact sheet
takes.prelabel := SHARDS FORMAT SCORE OUT## proposals -> label files to correct in a labelling tool
takes.duplicates := SHARDS THRESHOLD OUT## find images that are nearly the same
takes.select := SHARDS N LABELS WORK_DIR CHECKPOINT THRESHOLD SCORE OUT WORKERS DEVICE## the N images to label next
takes.cluster := SHARDS CLASSES## give every proposal a pseudo class by k-means
takes.recall := LABELS SHARDS## class-agnostic AP and AR of shard sets, SHARDS="dir dir"
takes.pretrain := MODEL SHARDS PROMPTS BACKBONE WEIGHTS TILES WORK_DIR WORKERS GPUS DEVICE## stage 2, pre-train
takes.finetune := MODEL DATASET ROOT INIT CHECKPOINT WEIGHTS TILES WORK_DIR WORKERS GPUS DEVICE## fine-tune, evaluate
takes.evaluate := WORK_DIR MODEL DATASET ROOT CHECKPOINT TILES OUT WORKERS DEVICE## AP of masks and boxes
takes.predict := IMAGES WORK_DIR CHECKPOINT OUT SCORE FORMAT TILES WORKERS DEVICE## images -> label files, pictures
takes.export := WORK_DIR FORMAT OUT## a fine-tuned detector -> ONNX, TorchScript or weights
takes.draw = PICTURE $(of.$(PICTURE))## PICTURE=curves RUNS="A=dir B=dir,dir"|activations RUNS|results SHARDS WORK_DIR
takes.table = N $(of.$(or $(table.$(N)),table))## N=1..7; N=labels DATASET SHARDS; N=6, N=proposals: IMAGES LABELS
takes.figure := N SCALE SEEDS JOBS WORK_DIR GPUS DEVICE## Figure N=3..6 of the paper, missing runs made first
takes.bench = PART $(of.$(PART))## measure, PART=proposals|training|operators|streaming|prediction|gpu|prompts
takes.report := WORK_DIR OUT## one HTML page of all runs, shard sets, tables and figures

# What each picture, benchmark and kind of table takes.
PICTURE ?= curves
PART ?= proposals
of.curves := RUNS OUT
of.activations := RUNS DATASET ROOT WORKERS DEVICE OUT
of.results := SHARDS WORK_DIR DEVICE SCORE OUT
of.table := SCALE SEEDS JOBS WORK_DIR GPUS DEVICE
of.labels := DATASET ROOT SHARDS MODEL TILES SEEDS JOBS WORK_DIR GPUS DEVICE
of.boxes := IMAGES LABELS SCALE SEEDS JOBS WORK_DIR GPUS DEVICE
of.comparison := IMAGES LABELS GENERATOR BACKBONE WORK_DIR WORKERS DEVICE
of.proposals := IMAGES BACKBONE WEIGHTS WORKERS DEVICE
of.training := MODEL DEVICE
of.operators := MODEL DEVICE
of.streaming :=
of.prediction := WORK_DIR
of.gpu := IMAGES BACKBONE WEIGHTS DEVICE WORKERS OUT
of.prompts := WORK_DIR CHECKPOINT DEVICE

table.6 := boxes
table.labels := labels
table.proposals := comparison

words.draw = $(PICTURE) $(if $(filter RUNS,$(of.$(PICTURE))),$(RUNS))
words.table = $(N)
words.figure = $(N)
words.bench = $(PART)
words.select = $(if $(N),--count "$(N)")
several := SEEDS.table MODEL.table SEEDS.figure SHARDS.recall GENERATOR.table BACKBONE.table
# $(call given,NAME,COMMAND): the option of a variable with its value, or with its values; nothing if it is empty.
values = $(if $(filter $(1).$(2),$(several)),$(foreach word,$($(1)),"$(word)"),"$(strip $($(1)))")
given = $(if $(and $(option.$(1)),$(strip $($(1)))),$(option.$(1)) $(call values,$(1),$(2)))

COMMANDS := demo data proposals fetch inspect prelabel duplicates select cluster recall pretrain finetune
COMMANDS += evaluate predict export draw table figure bench report
.DEFAULT_GOAL := help
.PHONY: help setup lock test lint $(COMMANDS)

# A variable on the command line that no goal takes is refused.
goals := $(or $(MAKECMDGOALS),help)
typed := $(foreach name,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $(name)))),$(name)))
taken := PYTHON $(if $(filter setup,$(goals)),OPS)
taken += $(if $(filter test $(COMMANDS),$(goals)),OPTS) $(foreach goal,$(goals),$(takes.$(goal)))
ifneq ($(filter-out $(taken),$(typed)),)
refused := $(filter-out $(taken),$(typed))
$(error $(refused): not of `make $(goals)`, whose variables are: $(or $(wordlist 2,99,$(taken)),none))
endif

$(COMMANDS): setup
	@$(PYTHON) -m pipelines $@ $(words.$@) $(foreach name,$(takes.$@),$(call given,$(name),$@)) $(OPTS)

help: ## list targets and variables
	@awk -F '## ' '/^[a-z]+:.*## / { sub(/:.*/, "", $$1); printf "  make %-11s %s\n", $$1, $$2 }' Makefile
	@awk -F ' :?= |## ' '/^takes\./ { if ($$2 !~ /\$$/) $$3 = $$3 ": " $$2; \
		printf "  make %-11s %s\n", substr($$1, 7), $$3 }' Makefile
	@printf '\nVariables, as in `make proposals IMAGES=images SHARDS=shards` (defaults in brackets):\n\n'
	@awk -F '## ' '/^option\./ { gsub(/option\.| :=.*/, "", $$1); printf "  %-11s %s\n", $$1, $$2 }' Makefile
	@printf '  %-11s %s\n' OPTS 'further options of the command, which `$(PYTHON) -m pipelines COMMAND --help` lists'

setup: ## build .venv, once; OPS=compiled: with MMCV's own operators
	@python3 -m pipelines.setup $(if $(OPS),--ops "$(OPS)")

UV_COMPILE := .venv/bin/uv pip compile pyproject.toml --extra dev --extra build --universal --python-version 3.11
lock: ## pin every dependency of pyproject.toml in requirements.lock
	$(UV_COMPILE) --generate-hashes --no-header --no-annotate --quiet --output-file requirements.lock

test: setup ## the test suite; OPTS="-k name" runs a part
	@$(PYTHON) -m pytest $(OPTS)

lint: setup ## ruff (format and rules), mypy and the import contract
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m mypy
	@.venv/bin/lint-imports
