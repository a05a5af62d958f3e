# make run · make test · make check · make coverage · make bench · make docs
# Each sets up its own virtual environment on first use, and again when setup.cfg changes.

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
# A comma that $(call) takes for no separator.
, := ,

.PHONY: run test check coverage lint types wheel docs bench clean help
help:
	@sed -n '1,2p' Makefile

# $(call environment,FOLDER,EXTRAS): a venv in which the working tree itself is installed. The strict editable
# install brings the entry points; the .pth line before it lets Python see new modules at once.
define environment
$(PYTHON) -m venv $(1)
$(1)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=24'
rm -rf build
$(1)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[$(2)]' --config-settings editable_mode=strict
$(1)/bin/python tools/link_checkout.py
touch $@
endef

$(VENV)/.ready: setup.cfg pyproject.toml
	$(call environment,$(VENV),test$(,)check$(,)docs)

.venv-run/.ready: setup.cfg pyproject.toml
	$(call environment,.venv-run,demo)

# The demo stack, on its embedded default (waitress, no other server), at http://127.0.0.1:8080/
run: .venv-run/.ready
	.venv-run/bin/lamella run apps/demo/stack.toml $(ARGS)

test: $(VENV)/.ready
	$(VENV)/bin/pytest -q -n 2 --dist loadfile $(ARGS)

check: lint types docs wheel

# Without tests of time, as the tracer makes everything slower, and of servers, of whose processes it sees nothing.
coverage: $(VENV)/.ready
	$(PY) -m coverage erase
	$(VENV)/bin/pytest -q -n 2 --dist loadfile -m "not timing and not server" \
		--cov --cov-config=setup.cfg --cov-report=term:skip-covered

lint: $(VENV)/.ready
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

types: $(VENV)/.ready
	$(PY) -m mypy -p lamella.middleware -p lamella.apps -p lamella.stack
	$(PY) -m mypy tests tools

# The wheel, built from a clean tree, in an empty environment: it holds everything and passes the suite.
wheel: $(VENV)/.ready
	$(PY) tools/check_wheel.py

docs: $(VENV)/.ready
	$(PY) tools/option_tables.py --check
	$(PY) -m mkdocs build --strict --quiet --site-dir site

bench:
	$(PYTHON) bench/run.py $(ARGS)

clean:
	rm -rf build dist site .venv .venv-run .venv-bench .venv-wheel *.egg-info .mypy_cache .ruff_cache .pytest_cache
