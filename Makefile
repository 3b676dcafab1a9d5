# make demo and make test set up everything themselves; PYTHON is any Python ≥ 3.11.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test drill install install-dev lock clean

demo: install
	$(BIN)/simgan demo

test: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -n 2 --dist loadfile

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
	$(BIN)/python -m pip install --quiet --progress-bar off -c requirements.lock -e .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --progress-bar off -c requirements.lock -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) .simgan build *.egg-info
