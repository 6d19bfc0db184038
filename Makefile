# demo and test create .venv and install what they need; everything else is for developers.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Waiting OpenMP threads that spin for long take the processor from the others.
export GOMP_SPINCOUNT := 10000
# Many processes are started: none shall compile the package anew, whatever the environment says.
export PYTHONDONTWRITEBYTECODE :=
# mypy from 2.4 on; earlier ones know no such thing.
export MYPY_NUM_WORKERS := 2

.PHONY: demo test mutants check format lowest docs release clean

demo: $(VENV)/.installed
	$(BIN)/degla demo
	@echo "On your own photographs: $(BIN)/degla demo --photos CAPTIONS --images FOLDER --out demo-photos"

# mypy takes one of two processors for a minute or more. Beside it one process compiles what the tests import, and
# rewrites their assertions, which else all of their processes do at once; then they begin.
test: $(VENV)/.installed-dev
	@$(MAKE) --no-print-directory check MYPY_NUM_WORKERS=1 & check=$$!; \
	$(BIN)/python -m pytest -p tests.preload --collect-only >/dev/null; \
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --no-loadscope-reorder || exit; \
	wait $$check || { echo "make check failed, as it says further up"; exit 1; }

mutants: $(VENV)/.installed-dev
	$(BIN)/python tools/mutate.py

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The lowest versions that pyproject.toml allows, in an environment of their own.
lowest:
	$(PYTHON) tools/lowest.py

docs: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet -e ".[docs]"
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet -d site/.doctrees docs \
		site/$$($(BIN)/python -c 'import degla; print(degla.__version__)')
	@echo site/index.html

# make release VERSION=0.2.0 [OPTIONS=--dry-run]
release: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -e ".[release]"
	$(BIN)/python tools/release.py $(VERSION) $(OPTIONS)

clean:
	rm -rf $(VENV) .venv-lowest demo runs dist site

# What pip's settings say of PyTorch's builds is asked of pip; uv reads none of them.
TORCH := $(VENV)/torch.txt
$(VENV)/.created:
	$(PYTHON) -c 'import sys; sys.exit("degla needs Python 3.11 or newer: make PYTHON=python3.11 ..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/python -m pip install --quiet --dry-run --no-deps --report $(VENV)/torch.json torch torchvision
	$(BIN)/python -c 'import json; [print(each["metadata"]["name"], "@", each["download_info"]["url"]) \
		for each in json.load(open("$(VENV)/torch.json"))["install"]]' > $(TORCH)
	touch $@

# uv takes a quarter of pip's time; where pip's settings name another index than PyPI, pip installs.
install = $(BIN)/uv pip install --quiet --python $(BIN)/python $(1) || $(BIN)/python -m pip install --quiet $(1)

$(VENV)/.installed: pyproject.toml requirements/tagger.txt | $(VENV)/.created
	$(call install,--require-hashes --no-deps -r requirements/tagger.txt)
	$(call install,-r $(TORCH) -e .)
	touch $@

$(VENV)/.installed-dev: pyproject.toml requirements/tagger.txt requirements/embedded.txt | $(VENV)/.created
	$(call install,--require-hashes --no-deps -r requirements/tagger.txt -r requirements/embedded.txt)
	$(call install,-r $(TORCH) -e ".[dev]")
	touch $@
