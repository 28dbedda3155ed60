# On a fresh machine two commands do everything: `make demo` and `make test`.

VENV ?= .venv
BASE_PYTHON ?= python3
WHEELS ?= .wheels
OUT ?= work_dirs/demo
# Detectron2 is on no package index: a wheel that lies in $(WHEELS) is taken, or what the user names.
DETECTRON2 ?= $(lastword $(sort $(wildcard $(WHEELS)/detectron2-*.whl)))
REPORTS := build/reports

ifdef PYTHON
# An environment of the user's own: taken as it is; only `make setup` installs into it.
PY := $(PYTHON)
READY :=
FULL_MMCV ?= $(shell $(PY) -c "import sys; print(sys.prefix)")/full-mmcv
else
PY := $(VENV)/bin/python
READY := $(VENV)/.stamp-setup $(if $(DETECTRON2),$(VENV)/.stamp-detectron2)
FULL_MMCV ?= $(VENV)/full-mmcv
endif
FULL_READY := $(FULL_MMCV)/.stamp

# Tiny models run fastest on one thread, and leave the other cores to the mmcv build.
PYTEST := OMP_NUM_THREADS=1 $(PY) -m pytest

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup setup-full-mmcv demo demo-page test test-fast test-full lint format typecheck \
	bench dist docs docs-serve clean distclean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' Makefile
	@echo
	@echo "Variables:"
	@echo "  VENV=.venv              environment that make creates"
	@echo "  BASE_PYTHON=python3     interpreter that creates it (3.9 to 3.13; tested: 3.11)"
	@echo "  PYTHON=/path/to/python  use an existing environment instead; only 'make setup' installs"
	@echo "                          into it, and keeps its torch and its mmcv"
	@echo "  DETECTRON2=path         wheel or checkout of Detectron2 to install; without it, the wheel"
	@echo "                          in $(WHEELS)/, if there is one"
	@echo "  MMCV_WHEEL=path         full mmcv wheel to use instead of building one"
	@echo "  ARGS='-k views'         more arguments for pytest"

# --- environment ---------------------------------------------------------------------------------

ifdef PYTHON
setup:  ## Create the environment: torch, frameworks, this project; mmcv-lite if there is no mmcv
	$(PY) scripts/setup_env.py base
	$(if $(DETECTRON2),$(PY) scripts/setup_env.py detectron2 "$(DETECTRON2)")
else
setup: $(READY)
endif

$(VENV)/bin/python:
	$(BASE_PYTHON) -m venv $(VENV)

$(VENV)/.stamp-setup: pyproject.toml requirements/constraints.txt scripts/setup_env.py \
		| $(VENV)/bin/python
	$(PY) scripts/setup_env.py base
	@touch $@

# Always runs, since another path may be given each time; the script sees what is installed already.
.PHONY: $(VENV)/.stamp-detectron2
$(VENV)/.stamp-detectron2: | $(VENV)/.stamp-setup
	@$(PY) scripts/setup_env.py detectron2 "$(DETECTRON2)"

setup-full-mmcv: $(FULL_READY)  ## Build mmcv with compiled ops (once) into a folder of its own

$(FULL_READY): requirements/constraints.txt scripts/setup_env.py | $(READY)
	@mkdir -p $(WHEELS)
	@echo "Setting up mmcv with compiled ops (a first build takes some minutes); log: $(WHEELS)/build.log"
	@$(PY) scripts/setup_env.py full-mmcv --target $(FULL_MMCV) --wheels $(WHEELS) \
		$(if $(MMCV_WHEEL),--wheel "$(MMCV_WHEEL)") > $(WHEELS)/build.log 2>&1 \
		|| { tail -n 40 $(WHEELS)/build.log; exit 1; }
	@touch $@

# --- use -----------------------------------------------------------------------------------------

demo: $(READY)  ## Compare a small model with and without the ensemble; results in work_dirs/demo
	$(PY) -m srt_plugins compare mmseg examples/demo/vit_scenes.py examples/demo/vit_scenes.pth \
		--complete replicate --row stride=8 --out $(OUT)

demo-page: $(READY)  ## The small models on a local web page
	$(PY) -m srt_plugins demo --model mmseg examples/demo/vit_scenes.py examples/demo/vit_scenes.pth \
		--model mmseg examples/depth/vit_scenes_depth_dpt.py examples/depth/vit_scenes_depth_dpt.pth $(ARGS)

bench: OUT = work_dirs/bench
bench: $(READY)  ## Measure time and memory against plain forwards; ARGS=--quick for a minute's worth
	$(PY) -m srt_plugins bench --out $(OUT) $(ARGS)

# The site needs no network, neither here nor when it is read.
MKDOCS := NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs

docs: $(READY)  ## Build the documentation into build/site; index.html opens in a browser
	$(MKDOCS) build
	@echo "Open build/site/index.html"

docs-serve: $(READY)  ## Serve the documentation while it is written, on localhost:8000
	$(MKDOCS) serve

# --- checks --------------------------------------------------------------------------------------

test: $(READY)  ## All tests: without compiled ops while mmcv is being built, then with full mmcv
	@rm -rf $(REPORTS)
	@$(MAKE) --no-print-directory -j2 test-fast setup-full-mmcv
	@$(MAKE) --no-print-directory test-full
	@$(PY) scripts/summarize_tests.py $(REPORTS)/no-compile.xml $(REPORTS)/full-mmcv.xml

test-fast: $(READY)  ## The tests that need no compiled ops
	$(PYTEST) -m "not full_mmcv" --junitxml=$(REPORTS)/no-compile.xml $(ARGS)

# DINOv2's models use timm and torch alone, so the tests of test-fast say it all.
test-full: $(FULL_READY)  ## The MMSegmentation tests on the full mmcv
	PYTHONPATH=$(FULL_MMCV) $(PYTEST) tests/mmseg --ignore-glob='*/test_dinov2*' --junitxml=$(REPORTS)/full-mmcv.xml $(ARGS)

lint: $(READY)  ## Check style
	$(PY) -m ruff check
	$(PY) -m ruff format --check

format: $(READY)  ## Apply style
	$(PY) -m ruff check --fix
	$(PY) -m ruff format

# Links put the mapped folders where an install has them, so that mypy sees their types.
typecheck: $(READY)  ## Check types
	@rm -rf build/types && mkdir -p build/types/srt_plugins
	@ln -s $(addprefix $(CURDIR)/,$(wildcard srt_plugins/*) adapters d2_configs) \
		build/types/srt_plugins/
	$(PY) -m mypy build/types/srt_plugins scripts

dist: $(READY)  ## Build the source distribution and the wheel into dist/
	$(PY) -m build --no-isolation

clean:  ## Remove build products, outputs and caches; keep the environment
	rm -rf build dist work_dirs *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -not -path "./$(VENV)/*" -prune -exec rm -rf {} +

distclean: clean  ## Remove the environment and the built mmcv too
	rm -rf $(VENV) $(WHEELS)
