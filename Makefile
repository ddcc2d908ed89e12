# Every target is one `python -m pipelines.X`; `make help` lists them with their variables and defaults.
SHELL := /bin/bash
PYTHON := .venv/bin/python

IMAGES ?= data/demo/unlabeled
SHARDS ?= shards
TO ?= shards
BACKBONE ?= lite0_imagenet
GENERATOR ?=
WEIGHTS ?=
WORKERS ?=
DEVICE ?=
GPUS ?=
MODEL ?= knet_lite0
DATASET ?= demo
INIT ?= sp
PROMPTS ?=
WORK_DIR ?=
OUT ?=
CHECKPOINT ?=
ROOT ?=
SIMILAR ?=
CLASSES ?=
THRESHOLD ?=
N ?= proposals
LABELS ?=
SCALE ?= demo
SEEDS ?= 0
JOBS ?=
RUNS ?=
OPTS ?=

# $(call flag,--name,value): the flag when the value is given, else nothing.
flag = $(if $(strip $(2)),$(1) "$(strip $(2))")

# What tables and figures of the paper share.
experiment = --scale "$(SCALE)" --seeds $(SEEDS) $(call flag,--work-dir,$(WORK_DIR)) $(call flag,--jobs,$(JOBS)) \
  $(call flag,--gpus,$(GPUS)) $(call flag,--device,$(DEVICE))

.DEFAULT_GOAL := help
.PHONY: help setup lock demo data proposals fetch inspect duplicates cluster pretrain finetune evaluate draw table bench figure report test lint

help: ## this table
	@printf 'Saliency Prompt. Set variables on the command line: make proposals IMAGES=images SHARDS=shards\n\n'
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@printf '\nEvery command takes further options in OPTS="--name value"; `$(PYTHON) -m pipelines.COMMAND --help` lists them.\n'

setup: ## build .venv (once; MMCV compiles for 8-12 minutes on two cores the first time)
	@python3 -m pipelines.setup

lock: ## pin every dependency of pyproject.toml in requirements.lock
	.venv/bin/uv pip compile pyproject.toml --extra dev --extra build --universal --python-version 3.11 \
	  --generate-hashes --no-header --no-annotate --quiet --output-file requirements.lock

demo: setup ## the whole job at a size for two cores, about 12 minutes -> work_dirs/demo
	@$(PYTHON) -m pipelines.demo $(OPTS)

data: setup ## check, convert and draw a labelled set: DATASET=demo|ctw1500|cityscapes|coco10|coco5|COCO JSON|labelme folder [ROOT=data/DATASET]
	@$(PYTHON) -m pipelines.prepare_data --dataset "$(DATASET)" $(call flag,--root,$(ROOT)) $(OPTS)

proposals: setup ## images -> shards: IMAGES=data/demo/unlabeled (a folder, COCO JSON, or text list of paths) SHARDS=shards (a directory, or a URL as s3://bucket/shards) BACKBONE=lite0_imagenet|densecl_r50|swav_r50|mocov2_r50|imagenet_r50|any of timm's [WEIGHTS=file] [GENERATOR=saliency|freemask|random|import] [WORKERS=n] [DEVICE=cpu|cuda]
	@$(PYTHON) -m pipelines.proposals --images "$(IMAGES)" --shards "$(SHARDS)" --backbone "$(BACKBONE)" \
	  $(call flag,--weights,$(WEIGHTS)) $(call flag,--generator,$(GENERATOR)) $(call flag,--workers,$(WORKERS)) $(call flag,--device,$(DEVICE)) $(OPTS)

fetch: setup ## bring a shard set from a URL to a directory, each shard verified: SHARDS=s3://bucket/shards TO=shards
	@$(PYTHON) -m pipelines.fetch_shards --shards "$(SHARDS)" --to "$(TO)" $(OPTS)

inspect: setup ## verify shards, print what they hold, draw a contact sheet, or the proposals most like a given one: SHARDS=shards [SIMILAR=image_id:row]
	@$(PYTHON) -m pipelines.inspect_shards --shards "$(SHARDS)" $(call flag,--similar,$(SIMILAR)) $(OPTS)

duplicates: setup ## find images that are nearly the same: SHARDS=shards [THRESHOLD=0.8]
	@$(PYTHON) -m pipelines.duplicates --shards "$(SHARDS)" $(call flag,--threshold,$(THRESHOLD)) $(OPTS)

cluster: setup ## give every proposal a pseudo class by k-means: SHARDS=shards [CLASSES=80]
	@$(PYTHON) -m pipelines.cluster --shards "$(SHARDS)" $(call flag,--classes,$(CLASSES)) $(OPTS)

pretrain: setup ## pre-train with Saliency Prompt, or on pseudo labels alone: MODEL=knet_lite0|any of configs/models SHARDS=shards [PROMPTS=on|off] [WEIGHTS=backbone file] [WORK_DIR=dir] [GPUS=n] [DEVICE=cpu|cuda]
	@$(PYTHON) -m pipelines.pretrain --model "$(MODEL)" --shards "$(SHARDS)" $(call flag,--prompts,$(PROMPTS)) $(call flag,--backbone-weights,$(WEIGHTS)) \
	  $(call flag,--work-dir,$(WORK_DIR)) $(call flag,--gpus,$(GPUS)) $(call flag,--device,$(DEVICE)) $(OPTS)

finetune: setup ## fine-tune and evaluate: DATASET=demo|as for data MODEL=knet_lite0|any of configs/models INIT=sp|pseudo|imagenet|densecl|swav|mocov2|coco|scratch|file [CHECKPOINT=file or pre-training's WORK_DIR] [WEIGHTS=backbone file] [ROOT=data dir] [WORK_DIR=dir] [GPUS=n]
	@$(PYTHON) -m pipelines.finetune --model "$(MODEL)" --dataset "$(DATASET)" --init "$(INIT)" \
	  $(call flag,--checkpoint,$(CHECKPOINT)) $(call flag,--backbone-weights,$(WEIGHTS)) $(call flag,--data-root,$(ROOT)) \
	  $(call flag,--work-dir,$(WORK_DIR)) $(call flag,--gpus,$(GPUS)) $(call flag,--device,$(DEVICE)) $(OPTS)

evaluate: setup ## AP, AP50, AP75, AP_S, AP_M, AP_L of masks and boxes: WORK_DIR=dir, or DATASET=demo|as for data MODEL=knet_lite0 CHECKPOINT=file
	@$(PYTHON) -m pipelines.evaluate $(if $(WORK_DIR),--work-dir "$(WORK_DIR)",--model "$(MODEL)" --dataset "$(DATASET)") \
	  $(call flag,--checkpoint,$(CHECKPOINT)) $(call flag,--data-root,$(ROOT)) $(call flag,--device,$(DEVICE)) $(OPTS)

draw: setup ## a picture of runs: N=curves RUNS="NAME=dir NAME=dir,dir", N=activations RUNS="NAME=dir" DATASET=demo|as for data, or N=results SHARDS=shards WORK_DIR=dir; [OUT=picture.png]
	@$(PYTHON) -m pipelines.draw "$(N)" $(if $(filter results,$(N)),--shards "$(SHARDS)" --run "$(WORK_DIR)",$(RUNS)) \
	  $(if $(filter activations,$(N)),--dataset "$(DATASET)" $(call flag,--data-root,$(ROOT))) $(if $(filter-out curves,$(N)),$(call flag,--device,$(DEVICE))) \
	  --out "$(if $(OUT),$(OUT),$(N).png)" $(OPTS)

table: setup ## a table of the paper beside the paper's numbers, its missing runs made first: N=1..7 SCALE=demo|paper SEEDS="0 1 2" [JOBS=n] [WORK_DIR=work_dirs/experiments] [GPUS=n] [DEVICE=cpu|cuda] [OPTS=--dry-run]; or class-agnostic AP, AP50 and AR@20 of shard sets, made first where a WORK_DIR is given: N=proposals LABELS=COCO JSON SHARDS="dir dir"|IMAGES=images WORK_DIR=dir
	@$(PYTHON) -m pipelines.tables "$(N)" $(if $(filter proposals,$(N)),$(call flag,--labels,$(LABELS)) \
	  $(if $(WORK_DIR),--images "$(IMAGES)" --work-dir "$(WORK_DIR)" --backbone "$(BACKBONE)" $(call flag,--weights,$(WEIGHTS)) \
	  $(call flag,--workers,$(WORKERS)) $(call flag,--device,$(DEVICE)),--shards $(foreach set,$(SHARDS),"$(set)")),$(experiment)) $(OPTS)

figure: setup ## a figure of the paper, its missing runs made first: N=3..6 SCALE=demo|paper SEEDS="0 1 2" [JOBS=n] [WORK_DIR=work_dirs/experiments] [GPUS=n] [DEVICE=cpu|cuda] [OPTS=--dry-run]
	@$(PYTHON) -m pipelines.figures "$(N)" $(experiment) $(OPTS)

bench: setup ## measure a part beside a plain implementation, or what a pre-training run makes of its prompts: N=proposals IMAGES=data/demo/unlabeled [BACKBONE=imagenet_r50] [WEIGHTS=file] [WORKERS=n], N=training [MODEL=knet_lite0|knet], N=streaming, or N=prompts WORK_DIR=a pre-training run's; [DEVICE=cpu|cuda]
	@$(PYTHON) -m pipelines.bench "$(N)" $(if $(filter proposals,$(N)),--images "$(IMAGES)" \
	  --backbone "$(if $(filter file,$(origin BACKBONE)),imagenet_r50,$(BACKBONE))" $(call flag,--weights,$(WEIGHTS)) \
	  $(call flag,--workers,$(WORKERS))) $(if $(filter training,$(N)),$(if $(filter file,$(origin MODEL)),,--model "$(MODEL)")) \
	  $(if $(filter prompts,$(N)),$(call flag,--work-dir,$(WORK_DIR)) $(call flag,--checkpoint,$(CHECKPOINT))) \
	  $(if $(filter-out streaming,$(N)),$(call flag,--device,$(DEVICE))) $(OPTS)

report: setup ## one HTML page of all runs, shard sets, tables and figures below a directory, to be read anywhere: [WORK_DIR=work_dirs] [OUT=WORK_DIR/report.html]
	@$(PYTHON) -m pipelines.report $(call flag,--work-dir,$(WORK_DIR)) $(call flag,--out,$(OUT)) $(OPTS)

test: setup ## the test suite; OPTS="-k name" runs a part
	@$(PYTHON) -m pytest $(OPTS)

lint: setup ## ruff (format and rules) and mypy
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m mypy
