# Every target does its own set-up: it works from a fresh clone with Python ≥ 3.11 and make; the tests
# need a C++ compiler too. `make help` lists the targets.

VENV := .venv
BIN := $(VENV)/bin
# In the folder it vouches for, so that it goes when the folder goes.
READY := $(VENV)/.ready
LOCK := requirements.lock
NEWEST := .venv-newest
ENGINES := .venv-engines
TEST := OMP_NUM_THREADS=1 TORCHINDUCTOR_COMPILE_THREADS=1 $(BIN)/python -m pytest
CODE := $(wildcard src tests benchmarks)

.PHONY: help venv demo test newest engines faults check clean
.DEFAULT_GOAL := help

help:
	@echo 'make demo   the whole story on this machine; ARGS="--data PATH" passes options on'
	@echo 'make test   run the tests; ARGS="tests/model -k axes" picks some'
	@echo 'make newest the same tests with the newest releases that pyproject.toml allows'
	@echo 'make engines tests by inference engines, which it builds in $(ENGINES)'
	@echo 'make check  ruff and mypy'
	@echo 'make faults kill a run of four ranks 50 times; ARGS="--kills 12 --seed 1" changes it'
	@echo 'make venv   make $(VENV) with every extra, the versions pinned by $(LOCK)'
	@echo 'make clean  remove every venv and cache; runs and demo output stay'

venv: $(READY)

# A venv without its stamp was left half-made and starts over; a whole one is only brought up to
# date. setuptools goes first so that the editable install builds with the pinned one.
$(READY): pyproject.toml $(LOCK)
	@test -f $@ || { \
	  for python in python3.13 python3.12 python3.11 python3; do \
	    path=$$(command -v $$python) && \
	    $$path -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' \
	      2>/dev/null && found=$$path && break; \
	  done; \
	  if [ -z "$$found" ]; then \
	    echo 'error: no Python >= 3.11 with venv and pip found (tried python3.13, python3.12,' \
	      'python3.11, python3); install one (on Debian and Ubuntu: python3 and python3-venv)' >&2; \
	    exit 2; \
	  fi; \
	  echo "making $(VENV) with $$($$found --version)"; \
	  $$found -m venv --clear $(VENV); }
	@rm -f $@
	@echo 'installing the packages; the first time torch alone can take some minutes'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(LOCK) --upgrade setuptools
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(LOCK) \
	  --no-build-isolation -e '.[all,dev]'
	@touch $@

demo: venv
	$(BIN)/teleflm demo $(ARGS)

# One thread a process: two test workers on two cores would otherwise fight over them. Tests of many
# ranks take all cores, and come alone.
test: venv
ifdef ARGS
	$(TEST) $(ARGS)
else
	$(TEST) -n 2 --ignore tests/distributed
	$(TEST) tests/distributed
endif

# No lock, and a new venv each time: what the libraries of today change is to be seen here first.
newest:
	rm -rf $(NEWEST)
	$(MAKE) venv VENV=$(NEWEST) LOCK=/dev/null
	$(NEWEST)/bin/python -m pip list --disable-pip-version-check
	$(MAKE) test VENV=$(NEWEST) LOCK=/dev/null

# llama.cpp is compiled here from its Python package, which takes minutes and a C++ compiler.
engines:
	$(MAKE) venv VENV=$(ENGINES)
	$(ENGINES)/bin/python -m pip install --quiet --disable-pip-version-check -c $(LOCK) \
	  'llama-cpp-python[server]' 'transformers[serving]' openai
	$(MAKE) test VENV=$(ENGINES) ARGS="-m engines $(ARGS)"

# Some 10 minutes on two cores; a short form is among the tests.
faults: venv
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.drill.faults $(ARGS)

check: venv
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy $(CODE)

clean:
	rm -rf $(VENV) $(NEWEST) $(ENGINES) build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +
