# make demo: everything from nothing, then the main job on synthetic talkers     make test: everything from nothing, then the tests
# make check: format, lint, types, tests                                         make fix: format and mend what can be mended
# make docs: docs/ as a site in site/
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
OUTPUT := demo/output
# What draws and speaks the demo's talkers, beside the profile's own networks.
TALKERS := random_face_mapping_xml random_face_mapping_bin random_face_synthesis_xml random_face_synthesis_bin \
	piper_joe_voice piper_joe_voice_json

# OpenMP's threads wait for each other spinning; beside other work that made a step of the toy take 30 times as long.
export OMP_WAIT_POLICY := PASSIVE

.PHONY: demo test check fix docs clean

# Several packages bring a flavour of OpenCV each, all into one folder; the last wins, and only this one needs no libGL.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt ".[train,app,evaluate,demo,dev]"
	$(BIN)/python -m pip install --quiet --force-reinstall --no-deps -c constraints.txt opencv-python-headless
	touch $@

demo: $(READY)
	$(BIN)/python weights.py fetch --profile embedded $(TALKERS)
	$(BIN)/python -m demo.run --output $(OUTPUT)

test: $(READY)
	$(BIN)/python weights.py fetch --profile embedded $(TALKERS)
	$(BIN)/python -m tests.talkers
	$(BIN)/python -m pytest -n auto --dist loadfile

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(MAKE) test

fix: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(READY)
	$(BIN)/python -m pip install --quiet -c constraints.txt ".[docs]"
	$(BIN)/python -m mkdocs build

clean:
	rm -rf $(VENV) $(OUTPUT)
