# `make audit` and `make test` need only Python >= 3.11 and make: the virtual environment is made on first use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# torchvision and timm import beside the torch that they were made for alone.
VISION := .venv-vision
VISION_READY := $(VISION)/.ready

.PHONY: audit test lint types unit laws kernels docs test-vision bench clean

audit: $(READY)
	$(BIN)/signstep audit

# What takes one core side by side, then what takes two.
test: $(READY)
	$(MAKE) --no-print-directory -j 2 types lint docs
	$(MAKE) --no-print-directory unit kernels

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "signstep needs Python 3.11 or newer; run make PYTHON=/path/to/python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(READY)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(READY)
	$(BIN)/mypy

unit: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

# Laws over tables in all their combinations; `unit` runs those in which every two values meet.
laws: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m pairwise --whole

# The laws that hang on how a processor computes, under the kernels of lesser processors.
kernels: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python scripts/other_kernels.py

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# Not part of `make test`: some five gigabytes on first use.
test-vision: $(VISION_READY)
	OMP_NUM_THREADS=1 $(VISION)/bin/python -m pytest -m vision tests/opening

$(VISION_READY): pyproject.toml
	test -x $(VISION)/bin/python || $(PYTHON) -m venv $(VISION)
	$(VISION)/bin/python -m pip install --quiet --disable-pip-version-check torch==2.14.1 torchvision==0.29.1 timm==1.0.31 pytest -e '.[images]'
	touch $(VISION_READY)

bench: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r benchmarks/requirements.txt
	$(BIN)/python benchmarks/fgsm_speed.py
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/saturation.py
	$(BIN)/python benchmarks/reference_models.py
	$(BIN)/python benchmarks/origin_paper.py
	$(BIN)/python benchmarks/verify_speed.py

clean:
	rm -rf $(VENV) $(VISION) site
