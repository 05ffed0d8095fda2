# make demo: everything from nothing, then the main job on synthetic talkers     make test: everything from nothing, then the tests
# make check: format, lint, types, tests                                         make fix: format and mend what can be mended
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
OUTPUT := demo/output
export CUDA_VISIBLE_DEVICES ?=

.PHONY: demo test check fix clean

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt ".[train,demo,dev]"
	touch $@

demo: $(READY)
	$(BIN)/python weights.py fetch --profile embedded
	$(BIN)/python -m demo.corpus --output $(OUTPUT)/videos
	$(BIN)/python curation/run.py --profile embedded --videos $(OUTPUT)/videos --output $(OUTPUT)/curated
	$(BIN)/python -m manifests.summary $(OUTPUT)/curated
	$(BIN)/python -c "import pandas; print(pandas.read_parquet('$(OUTPUT)/curated/manifests/clips.parquet').head())"

test: $(READY)
	$(BIN)/python weights.py fetch --profile embedded
	$(BIN)/python -m pytest -n auto

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(MAKE) test

fix: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) $(OUTPUT)
