# Two commands: `make lab` to work, `make test` to test. The rest is what they are made of.
# Relative paths only, so that a folder with a space or an accent in its name will do; nothing here
# needs more than GNU make 3.81.

# PYTHON     a Python of 3.11 or newer for `make setup`; searched for when empty
# PIP_ARGS   more options for pip
# LAB_ARGS   more options for JupyterLab, for instance "--no-browser --port 8899"
# ARGS       more options for what the target runs: "01 02" for notebooks, pytest's for the tests
# WORK       the folder of the learner's own copies of the notebooks
# TESTS      what `make test` tests: files or folders of tests (may be empty) ...
# NOTEBOOKS  ... and notebooks: make test TESTS= NOTEBOOKS="notebooks/0[0-2]_*.ipynb"
# SYSTEM     for `make test-systems`: Darwin or Windows; both when empty
# DEBIAN     for `make test-fresh`: trixie (13) or bookworm (12); ARGS=--whole runs all tests there
PYTHON =
PIP_ARGS =
LAB_ARGS =
ARGS =
WORK = work
TESTS = tests
NOTEBOOKS = notebooks
SYSTEM =
DEBIAN = trixie

PY = .venv/bin/python
PYTEST = $(PY) -m pytest
SET_UP = PIP_ARGS='$(PIP_ARGS)' $(PY) -I set_up.py
READY = .venv/.qm9lab-ready
TEST_READY = .venv/.qm9lab-ready-test
BROWSER_READY = .venv/.qm9lab-ready-browser
BENCH_READY = .venv/.qm9lab-ready-bench

# Python finds the kit, and no module of the caller's that has the name of one of ours.
export PYTHONPATH = $(CURDIR)
unexport PYTHONHOME

# What .venv was made from stands in $(READY): this folder and the two lists. Dates do not count.
STAMP := $(shell { pwd -P; cat pyproject.toml requirements.lock; } | cksum)
STALE := $(shell [ "`cat $(READY) 2>/dev/null`" = "$(STAMP)" ] && $(PY) -I -c '' 2>/dev/null || \
  echo FORCE)

.PHONY: help setup data lab test test-user test-systems test-browser test-fresh bench notebooks \
  figures fresh clean FORCE
.NOTPARALLEL:

help:
	@echo 'make lab           set up, get QM9 ready, open JupyterLab at the first lesson'
	@echo 'make test          set up, then ruff, mypy, the unit tests, every notebook and solution'
	@echo 'make test-user     every notebook alone, as an ordinary user, without a network (root)'
	@echo 'make test-systems  every notebook told that it is on macOS, then on Windows (Linux)'
	@echo 'make test-browser  every notebook in a headless Chromium, each control at both ends'
	@echo 'make test-fresh    both commands on a bare Debian, made for this (root, debootstrap)'
	@echo 'make bench         the file of columns and other tools, compared (ARGS=--quick)'
	@echo 'make setup         only make .venv and install into it'
	@echo 'make fresh         move the notebooks in $(WORK)/ aside and copy the lessons again'
	@echo 'make notebooks     run the lessons and solutions and keep their outputs (ARGS="01 02")'
	@echo 'make figures       draw the figures'
	@echo 'make clean         remove .venv and caches; data/ and $(WORK)/ stay'

setup: $(READY)

$(READY): $(STALE)
	@set -- $(if $(PYTHON),'$(PYTHON)',python3 python3.13 python3.12 python3.11); \
	for python do \
	  if "$$python" -I -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    PIP_ARGS='$(PIP_ARGS)' "$$python" -I set_up.py && rm -f $(READY)* && \
	      echo "$(STAMP)" > $(READY); exit; fi; \
	done; \
	echo "setup: found no working Python 3.11 or newer (tried: $$*):" \
	  "install one, or name it: make setup PYTHON=python3.12" >&2; exit 1

# What the tests, the browser and the bench need more than a learner.
$(TEST_READY): $(STALE) | $(READY)
	@$(SET_UP) test && : > $@

$(BROWSER_READY): $(STALE) | $(READY)
	@$(SET_UP) test browser && : > $@

$(BENCH_READY): $(STALE) | $(READY)
	@$(SET_UP) bench && : > $@

data: $(READY)
	@$(PY) -m qm9lab data

# The notebook is named in the URL that JupyterLab prints and opens.
lab: data
	@$(PY) -m qm9lab copy --to "$(WORK)"
	@root=; [ "`id -u`" != 0 ] || root=--allow-root; \
	$(PY) -m jupyterlab $$root --ServerApp.root_dir=. \
	  --LabApp.default_url="/lab/tree/$(WORK)/00_start_here.ipynb" $(LAB_ARGS)

fresh: $(READY)
	@$(PY) -m qm9lab fresh --to "$(WORK)"

# What asserts on time, cache or memory runs first and alone (pytest's status 5: there is none).
# Then everything in one run: the notebooks one after another on one core (they share files), the
# unit tests on the other (tests/conftest.py).
test: data $(TEST_READY)
	@$(PY) -m ruff check . && $(PY) -m ruff format --check . && $(PY) -m mypy
	@[ -z "$(TESTS)" ] || $(PYTEST) -q -p no:nbval \
	  -m "timing and not browser and not user" $(TESTS) || [ $$? -eq 5 ]
	@$(PYTEST) --nbval -n 2 -m "not timing and not browser and not user and not systems" \
	  $(if $(TESTS),,-p tests.conftest) \
	  $(ARGS) $(TESTS) $(NOTEBOOKS)

test-user: data $(TEST_READY)
	@$(PYTEST) -n 2 -p no:nbval -m user $(ARGS) tests/test_ordinary_user.py tests/test_twice.py

test-systems: data $(TEST_READY)
	@QM9LAB_SYSTEM=$(SYSTEM) $(PYTEST) -n 2 -p no:nbval -m systems $(ARGS) \
	  tests/test_other_systems.py tests/test_fuse.py

test-browser: data $(BROWSER_READY)
	@if command -v chromium > /dev/null || command -v chromium-browser > /dev/null || \
	  command -v google-chrome > /dev/null; then :; \
	elif [ "`id -u`" = 0 ] && command -v apt-get > /dev/null; then \
	  echo "test-browser: installing chromium from the distribution's packages"; \
	  { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq -y install chromium; } \
	    > .venv/chromium.log 2>&1 || { \
	    echo "test-browser: apt-get could not install chromium (its output is in" \
	      ".venv/chromium.log): install chromium and run make again" >&2; exit 1; }; \
	else \
	  echo "test-browser: found no chromium: install it (Debian, Ubuntu:" \
	    "apt install chromium) and run make again" >&2; exit 1; \
	fi
	@$(PYTEST) -q -p no:nbval -m "browser and timing" $(ARGS) tests/test_browser.py || [ $$? -eq 5 ]
	@$(PYTEST) -n 2 -p no:nbval -m "browser and not timing" $(ARGS) tests/test_browser.py

test-fresh:
	@python3 tests/fresh.py $(DEBIAN) $(ARGS)

bench: data $(BENCH_READY)
	@$(PY) tests/bench/bench.py $(ARGS)

notebooks: data
	@$(PY) notebooks/build.py $(ARGS)

figures: $(READY)
	@$(PY) figures/build.py

clean:
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache .hypothesis .screenshots build work-*
	rm -rf *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
