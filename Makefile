# Two commands: `make lab` to work, `make test` to test. The rest is what they are made of.
# Relative paths only, so that a folder with a space or an accent in its name will do; nothing here
# needs more than GNU make 3.81.

# PYTHON    a Python of 3.11 or newer for `make setup`; searched for when empty
# PIP_ARGS  more options for pip
# LAB_ARGS  more options for JupyterLab, for instance "--no-browser --port 8899"
# ARGS      more options for what the target runs: "01 02" for notebooks, pytest's for the tests
# WORK      the folder of the learner's own copies of the notebooks
PYTHON =
PIP_ARGS =
LAB_ARGS =
ARGS =
WORK = work

PY = .venv/bin/python
PYTEST = $(PY) -m pytest
SAID = .venv/setup.log
PIP = > $(SAID) 2>&1 $(PY) -m pip install --disable-pip-version-check --no-input $(PIP_ARGS)
COULD_NOT = echo "setup: pip could not install
TRY_AGAIN = (what it said: $(SAID)):" \
  "connect to the network, or make room on the disk, and run make again" >&2; exit 1;
READY = .venv/.qm9lab-ready
BROWSER_READY = .venv/.qm9lab-browser-ready
BENCH_READY = .venv/.qm9lab-bench-ready
UNFINISHED = .venv/.qm9lab-unfinished
LAB_SETTINGS = .venv/share/jupyter/lab/settings

# A .venv that was moved, or whose Python is gone, is set up again. The folder that it was set up
# in stands in the file $(READY).
STALE := $(shell [ "`cat $(READY) 2>/dev/null`" = "`pwd -P`" ] && $(PY) -c '' 2>/dev/null || echo FORCE)

.PHONY: help setup data lab test test-user test-systems test-browser bench notebooks figures fresh \
  clean FORCE
.NOTPARALLEL:

help:
	@echo 'make lab           set up, get QM9 ready, open JupyterLab at the first lesson'
	@echo 'make test          set up, then ruff, the unit tests, every notebook and every solution'
	@echo 'make test-user     every notebook alone, as an ordinary user, without a network (root)'
	@echo 'make test-systems  every notebook told that it is on macOS, then on Windows (Linux)'
	@echo 'make test-browser  every notebook in a headless Chromium, each control at both ends'
	@echo 'make bench         the file of columns beside other tools (ARGS=--quick: in a minute)'
	@echo 'make setup         only make .venv and install into it'
	@echo 'make fresh         move the notebooks in $(WORK)/ aside and copy the lessons anew'
	@echo 'make notebooks     run the lessons and solutions and store their outputs (ARGS="01 02")'
	@echo 'make figures       draw the figures'
	@echo 'make clean         remove .venv and caches; data/ and $(WORK)/ stay'

setup: $(READY)

$(READY): pyproject.toml requirements.lock $(STALE)
	@if [ -e $(UNFINISHED) ] || ! $(PY) -c 'import pip' 2>/dev/null; then \
	  if [ -n '$(PYTHON)' ]; then set -- '$(PYTHON)'; \
	  else set -- python3 python3.13 python3.12 python3.11; fi; \
	  found=; tried="$$*"; \
	  for python do \
	    if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
	    then found=$$python; break; fi; \
	  done; \
	  if [ -z "$$found" ]; then \
	    echo "setup: found no working Python 3.11 or newer (tried: $$tried):" \
	      "install one, or name it: make setup PYTHON=python3.12" >&2; exit 1; \
	  fi; \
	  free=`df -Pk . 2>/dev/null | awk 'NR == 2 { print $$4 }'`; \
	  if [ "$${free:-9999999}" -lt 2500000 ] 2>/dev/null; then \
	    echo "setup: needs 2.5 GB free on this disk, found `expr $$free / 1000` MB:" \
	      "make room, or move this folder to another disk" >&2; exit 1; \
	  fi; \
	  rm -rf .venv && mkdir .venv && : > $(UNFINISHED) || { \
	    echo "setup: cannot write in this folder: copy it to a place of your own" >&2; exit 1; }; \
	  echo "setup: making .venv with $$found"; \
	  if ! "$$found" -m venv .venv > $(SAID) 2>&1; then \
	    echo "setup: $$found cannot make a virtual environment: install its venv module" \
	      "(Debian, Ubuntu: apt install python3-venv), or name another: make setup PYTHON=..." \
	      "(what it said: $(SAID))" >&2; exit 1; \
	  fi; \
	fi
	@: > $(UNFINISHED)
	@# Older ones (Debian 12's 23.0) try combinations of versions for hours under these constraints.
	@$(PIP) "pip>=23.2" || { $(COULD_NOT) a newer pip $(TRY_AGAIN) }
	@torch=`grep '^torch==' requirements.lock`; \
	echo "setup: installing $$torch (a minute, or ten on a slow line)"; \
	$(PIP) "$$torch" || { $(COULD_NOT) $$torch $(TRY_AGAIN) }
	@echo "setup: installing the rest as pinned in requirements.lock (one to five minutes)"; \
	$(PIP) -e ".[test]" -c requirements.lock || { $(COULD_NOT) the pinned packages $(TRY_AGAIN) }
	@# JupyterLab: keep the state of widgets in saved notebooks, and ask no server for news.
	@mkdir -p $(LAB_SETTINGS) && printf '%s\n' '{' \
	  '  "@jupyter-widgets/jupyterlab-manager:plugin": {"saveState": true},' \
	  '  "@jupyterlab/apputils-extension:notification":' \
	  '    {"fetchNews": "false", "checkForUpdates": false}' \
	  '}' > $(LAB_SETTINGS)/overrides.json && pwd -P > $(READY) && rm -f $(UNFINISHED) || { \
	  echo "setup: cannot write into .venv: make room on the disk and run make again" >&2; exit 1; }
	@echo "setup: done"

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
# unit tests on the other. tests/conftest.py says so to xdist.
test: data
	@$(PY) -m ruff check .
	@$(PYTEST) -q -p no:nbval -m "timing and not browser and not user" tests || [ $$? -eq 5 ]
	@$(PYTEST) --nbval -n 2 -m "not timing and not browser and not user and not systems" \
	  $(ARGS) tests notebooks

test-user: data
	@$(PYTEST) -n 2 -p no:nbval -m user $(ARGS) tests/test_ordinary_user.py

test-systems: data
	@$(PYTEST) -n 2 -p no:nbval -m systems $(ARGS) tests/test_other_systems.py

$(BROWSER_READY): $(READY)
	@echo "setup: installing what drives a browser"; \
	$(PIP) -e ".[test,browser]" -c requirements.lock || { $(COULD_NOT) playwright $(TRY_AGAIN) }
	@: > $(BROWSER_READY)

test-browser: data $(BROWSER_READY)
	@if command -v chromium > /dev/null || command -v chromium-browser > /dev/null || \
	  command -v google-chrome > /dev/null; then :; \
	elif [ "`id -u`" = 0 ] && command -v apt-get > /dev/null; then \
	  echo "test-browser: installing chromium from the distribution's packages"; \
	  { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq -y install chromium; } \
	    > .venv/chromium.log 2>&1 || { \
	    echo "test-browser: apt-get could not install chromium (what it said:" \
	      ".venv/chromium.log): install chromium and run make again" >&2; exit 1; }; \
	else \
	  echo "test-browser: found no chromium: install it (Debian, Ubuntu:" \
	    "apt install chromium) and run make again" >&2; exit 1; \
	fi
	@$(PYTEST) -q -p no:nbval -m "browser and timing" $(ARGS) tests/test_browser.py || [ $$? -eq 5 ]
	@$(PYTEST) -n 2 -p no:nbval -m "browser and not timing" $(ARGS) tests/test_browser.py

$(BENCH_READY): $(READY)
	@echo "setup: installing what the bench compares with"; \
	$(PIP) -e ".[test,bench]" -c requirements.lock || { $(COULD_NOT) the peers $(TRY_AGAIN) }
	@: > $(BENCH_READY)

bench: data $(BENCH_READY)
	@$(PY) tests/bench/bench.py $(ARGS)

notebooks: data
	@$(PY) notebooks/build.py $(ARGS)

figures: $(READY)
	@$(PY) figures/build.py

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis .screenshots build work-*
	rm -rf *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
