# Everything runs in .venv, which holds the exact versions of requirements.lock and this project as an editable install: what runs
# is the checkout, and an edit is seen by whatever is started next.
# All paths are relative, so a checkout may lie anywhere, in a folder with spaces too.

PYTHON ?= python3
OUT ?= build/run
ARGS ?=

# The scripts beside this python fail where the path of the checkout has a $ in it; -m never does.
RUN := .venv/bin/python -m
PIP := $(RUN) pip --disable-pip-version-check
KAPPA := $(RUN) kappa_rtl.scripts.main

PACKAGES := golden hw sim scripts frameworks

# The last step of each writes its stamp, so that an interrupted one starts over.
# The first holds the path of the checkout: the scripts in an environment stop working when it moves.
ENVIRONMENT := .venv/environment.stamp
PROJECT := .venv/project.stamp
FRAMEWORKS := .venv-torch/frameworks.stamp
TORCH := .venv-torch/bin/python -m
STALE := $(shell test "$$(cat $(ENVIRONMENT) 2>/dev/null)" = "$$(pwd -P)" && .venv/bin/python -c '' 2>/dev/null || echo FORCE)

# The tests of the model and of the house, and the benches that are soon compiled.
QUICK := tests/golden tests/scripts/test_house.py tests/scripts/test_configuration.py tests/scripts/test_pages.py $(foreach stem,divider sqrt ema clamp norm random,tests/hw/test_hw_$(stem).py)

# A make that a simulator starts is not a part of this one: it gets neither its options nor its job server.
unexport MAKEFLAGS MFLAGS

.PHONY: help env run check test test-all wheel prove coverage lint docs pages bench soak torch-test soc lock clean FORCE

help: ## print this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' Makefile | expand -t 20
	@echo 'Variables: PYTHON (now: $(PYTHON)), OUT (where run writes, now: $(OUT)),'
	@echo '           ARGS (more options for kappa-rtl, pytest, the proofs, Sphinx or uv, such as ARGS="--sim icarus --steps 50")'

run: $(PROJECT) ## the main job: train with the RTL as the throttle, and report
	$(KAPPA) cosim --out "$(OUT)" $(ARGS)
	@cd "$(OUT)" && echo "Report: $$(pwd -P)/index.html"

check: lint docs ## what to run before a commit: ruff, mypy, the site, the model's tests and the quick benches (two minutes)
	$(RUN) pytest -n auto --dist worksteal -q $(QUICK) $(ARGS)

test: $(PROJECT) ## the tests, but for the slow ones
	$(RUN) pytest -n auto --dist worksteal $(ARGS)

test-all: $(PROJECT) ## all tests, the slow ones too
	$(RUN) pytest -n auto --dist worksteal --slow $(ARGS)

# Built from a copy, so that nothing left in the tree gets into it.
wheel: $(PROJECT) ## build the wheel into build/wheel, and run the quick tests on it in the place of the checkout
	rm -rf build/wheel
	mkdir -p build/wheel/src
	cp -RP pyproject.toml README.md LICENSE $(PACKAGES) src build/wheel/src
	$(PIP) wheel --quiet --no-deps --no-build-isolation --wheel-dir build/wheel ./build/wheel/src
	$(PIP) install --quiet --no-deps --no-index --target build/wheel/site build/wheel/kappa_rtl-*.whl
	PYTHONPATH="$$PWD/build/wheel/site" KAPPA_RTL_WHEEL="$$PWD/build/wheel/site" \
	    $(RUN) pytest -n auto --dist worksteal -q $(QUICK) tests/scripts/test_packaging.py $(ARGS)

prove: $(PROJECT) ## the formal proofs and the faults that they reject, as a table (ARGS=divider: only some)
	PYTHONPATH=tests $(RUN) formal $(ARGS)

coverage: $(PROJECT) ## what the tests reach of the Verilog and the Python, as tables (ARGS="-n auto --slow": the slow ones too)
	PYTHONPATH=tests $(RUN) support.coverage $(ARGS)

lint: $(PROJECT) ## ruff and mypy
	$(RUN) ruff check .
	$(RUN) mypy

docs: $(PROJECT) ## the site, in build/site
	$(RUN) sphinx --builder html --doctree-dir build/doctrees --write-all --fail-on-warning --quiet $(ARGS) docs build/site
	@echo "Site: $$(pwd -P)/build/site/index.html"

pages: $(PROJECT) ## write the pages anew that are made from the code: configuration, registers
	$(RUN) kappa_rtl.scripts.pages docs

bench: $(PROJECT) ## the speed of the golden model and of the simulations
	$(KAPPA) bench $(ARGS)

soak: $(PROJECT) ## ten million element updates and a million scalar steps against the golden model (some minutes)
	$(KAPPA) soak $(ARGS)

torch-test: $(FRAMEWORKS) ## the tests of the torch and Keras adapters and of their examples, in an environment of its own (1 to 6 GB)
	$(TORCH) pytest -n auto --dist worksteal tests/frameworks tests/credit/test_torch_observed.py $(ARGS)

soc: $(PROJECT) ## train on a simulated system: VexRiscv and LiteX's DMA around the unit (needs gcc-riscv64-unknown-elf)
	.venv/bin/python examples/soc/run.py build/soc

env: $(PROJECT) ## only create .venv

lock: ## renew requirements.lock after a change in pyproject.toml (ARGS=--upgrade: all to their newest)
	rm -rf build/lock
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet uv
	build/lock/bin/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --fork-strategy fewest \
	    --no-annotate --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" \
	    --quiet --output-file requirements.lock $(ARGS)

clean: ## remove .venv and everything built
	rm -rf .venv .venv-torch build .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find $(PACKAGES) tests -name __pycache__ -prune -exec rm -rf {} +

$(ENVIRONMENT): requirements.lock $(STALE)
	@command -v "$(PYTHON)" >/dev/null || { echo "error: no $(PYTHON): install Python 3.11 or newer, or name one: make PYTHON=python3.12" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "error: $(PYTHON) is $$("$(PYTHON)" --version 2>&1), and Python 3.11 or newer is needed; name another: make PYTHON=python3.12" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || \
	    { echo "error: $(PYTHON) has no venv module (Debian and Ubuntu: apt-get install python3-venv)" >&2; exit 1; }
	@for tool in c++ perl; do command -v $$tool >/dev/null || \
	    { echo "error: no $$tool, which Verilator needs (Debian and Ubuntu: apt-get install g++ perl)" >&2; exit 1; }; done
	@echo "Creating .venv with the versions of requirements.lock (two minutes)"
	@rm -rf .venv
	"$(PYTHON)" -m venv .venv
	$(PIP) install --no-deps --requirement requirements.lock
	@pwd -P > $@

# torch and Keras on top of .venv, which is seen through a line of code in a file of paths.
$(FRAMEWORKS): requirements-torch.lock $(PROJECT)
	@echo "Creating .venv-torch with the versions of requirements-torch.lock (some minutes)"
	@rm -rf .venv-torch
	.venv/bin/python -m venv .venv-torch
	.venv-torch/bin/python -c 'import pathlib, sysconfig; \
	    below = sysconfig.get_path("purelib", vars={"base": str(pathlib.Path(".venv").resolve())}); \
	    pathlib.Path(sysconfig.get_path("purelib"), "below.pth").write_text(f"import site; site.addsitedir({below!r})\n")'
	.venv-torch/bin/python -m pip --disable-pip-version-check install --quiet --requirement requirements-torch.lock
	@touch $@

# Without isolation (setuptools is in the lock). Renewed only when what pip writes down changes: dependencies, commands, entry points.
$(PROJECT): $(ENVIRONMENT) pyproject.toml
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@$(PIP) check
	@touch $@
