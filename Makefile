# make demo and make test set up everything themselves; PYTHON is any Python ≥ 3.11.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

LOCKED := $(BIN)/python -m pip install --quiet --progress-bar off --no-deps --require-hashes
# Without a hash: the CPU's build, PyPI's and a vendor's are different files of one version. It is
# exact, since a looser bound takes gigabytes of CUDA packages where a CPU build is installed.
TORCH := torch==2.13.0

.PHONY: demo test check lint docs drill install install-dev lock clean

demo: install
	$(BIN)/simgan demo

test: lint
	$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder

# What a change of the core or of the storage needs before it is pushed.
check: lint
	$(BIN)/pytest -n 3 --dist loadfile tests/simgan_core tests/storage

lint: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry flows tasks simgan_core storage
	$(BIN)/deptry tests benchmarks examples --exclude '\.venv' --ignore DEP002,DEP004

# The documentation as a site, in build/site; nothing is fetched, and a warning is an error.
docs: install-dev
	$(BIN)/mkdocs build --strict --config-file docs/site/mkdocs.yml

# What goes wrong in operation, on real servers and workers; some of it takes minutes to happen.
# Without Debian's chromium and postgresql, what needs them is skipped.
drill: install-dev
	$(BIN)/pytest -m drill

install: $(VENV)/installed
install-dev: $(VENV)/installed-dev

$(VENV)/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make PYTHON=python3.11 …"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(LOCKED) -r requirements.lock
	$(BIN)/python -m pip install --quiet --progress-bar off $(TORCH)
	$(BIN)/python -m pip install --quiet --progress-bar off --no-deps -e .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed requirements-dev.lock
	$(LOCKED) -r requirements-dev.lock
	$(BIN)/python -m pip check
	touch $@

# Exact versions with hashes, from the bounds in pyproject.toml; those that are locked stay unless
# they cannot: `make lock UPGRADE=--upgrade` takes the newest. One file serves Python 3.11 to 3.13.
LOCK := $(BIN)/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 \
	--fork-strategy fewest --generate-hashes --no-emit-package torch --no-annotate \
	--custom-compile-command 'make lock' $(UPGRADE)
lock: install-dev
	$(LOCK) --output-file requirements.lock
	$(LOCK) --extra dev --extra docs --constraints requirements.lock --output-file requirements-dev.lock

clean:
	rm -rf $(VENV) .simgan build *.egg-info
