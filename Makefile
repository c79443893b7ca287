# Needed: git, make, and some Python 3.12 or newer. Everything else is set up inside this folder.

.PHONY: help demo toolchains up test bench bench-full lint types lock clean
.DEFAULT_GOAL := help

# Any Python that runs can start the set-up, which then looks for one that suits.
ANY_PYTHON := $(shell for name in python3 /usr/bin/python3 python3.14 python3.13 python3.12 python; do \
	"$$name" -c 'import sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null && echo "$$name" && break; done)
PYTHON := .slipway/venv/bin/python
UV := $(firstword $(wildcard .slipway/tools/uv-venv/bin/uv .slipway/tools/uv-target/bin/uv) uv)
COMPILE := $(UV) pip compile --quiet --universal --python-version 3.12 --generate-hashes --no-emit-index-url \
	--custom-compile-command "make lock"
LOCAL_EXTRAS := --extra intake --extra serve --extra worker --extra kubernetes --extra embedded
# One more than a small machine has cores: many tests wait for processes of their own.
WORKERS ?= 3
# Environments of techniques whose packages do not fit beside the product's own.
TOOLCHAINS ?= openvino tensorrt torch sklearn $(if $(wildcard /dev/nvidiactl),cuda)
# Every start of a process would compile the product anew.
unexport PYTHONDONTWRITEBYTECODE
# TESTS=tests/optimizer narrows `make test`; ONLY=list_page narrows `make bench`.
TESTS ?=
ONLY ?=

define bootstrap
@test -n "$(ANY_PYTHON)" || { echo "Set-up failed. No Python 3 was found: install Python 3.12 or newer." >&2; exit 1; }
@$(ANY_PYTHON) install/bootstrap.py $(1)
endef

help: ## show this list
	@sed -n 's/^\([a-z-]*\): ## \(.*\)/  make \1	\2/p' $(MAKEFILE_LIST)

demo: ## set everything up and show the whole line on this machine
	$(call bootstrap,local)
	@exec $(PYTHON) manage.py demo

toolchains: ## install what OpenVINO, TensorRT, PyTorch and scikit-learn need (TOOLCHAINS=openvino: only that)
	$(call bootstrap,local $(TOOLCHAINS))

up: ## run every process on this machine, without the demo's content
	$(call bootstrap,local)
	@exec $(PYTHON) manage.py up

test: ## run the tests
	$(call bootstrap,dev $(TOOLCHAINS))
	@exec $(PYTHON) -m pytest -n $(WORKERS) --no-loadscope-reorder $(TESTS)

bench: ## run the benchmarks, short form
	$(call bootstrap,dev)
	@exec $(PYTHON) -m tests.benchmarks $(if $(ONLY),--only $(ONLY))

bench-full: ## run the benchmarks with the long soaks
	$(call bootstrap,dev)
	@exec $(PYTHON) -m tests.benchmarks --full $(if $(ONLY),--only $(ONLY))

lint: ## check style, format and the layers
	$(call bootstrap,dev)
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	.slipway/venv/bin/lint-imports

types: ## check the types
	$(call bootstrap,dev)
	$(PYTHON) -m mypy controlplane optimizer deployments install

# `local` and the images follow the pins of `dev`, so that one environment serves both.
lock: ## resolve the locks anew (UPGRADE=--upgrade takes newer versions)
	$(call bootstrap,dev)
	$(COMPILE) $(UPGRADE) $(LOCAL_EXTRAS) --group dev pyproject.toml -o requirements/dev.lock
	$(COMPILE) $(LOCAL_EXTRAS) -c requirements/dev.lock pyproject.toml -o requirements/local.lock
	$(COMPILE) --extra intake --extra kubernetes -c requirements/dev.lock pyproject.toml -o requirements/web.lock
	$(COMPILE) --extra intake --extra worker --extra serve --extra kubernetes --extra node -c requirements/dev.lock pyproject.toml -o requirements/worker.lock
	$(PYTHON) install/extra.py serve | $(COMPILE) -c requirements/dev.lock - -o requirements/serve.lock
	$(PYTHON) install/extra.py worker serve openvino | $(COMPILE) -c requirements/dev.lock - -o requirements/toolchain-openvino.lock
	$(PYTHON) install/extra.py worker tensorrt | $(COMPILE) -c requirements/dev.lock - -o requirements/toolchain-tensorrt.lock
	$(PYTHON) install/extra.py cuda | $(COMPILE) -c requirements/dev.lock - -o requirements/toolchain-cuda.lock
	$(PYTHON) install/extra.py worker torch | $(COMPILE) -c requirements/dev.lock - -o requirements/toolchain-torch.lock
	$(PYTHON) install/extra.py worker sklearn | $(COMPILE) -c requirements/dev.lock - -o requirements/toolchain-sklearn.lock

clean: ## remove what was set up and all data of this folder
	@if $(PYTHON) -c 'import pathlib, sys; from controlplane.embedded.runtime import running; sys.exit(running(pathlib.Path(".slipway")) is None)' 2>/dev/null; \
	then echo "Slipway is running from this folder: stop it first." >&2; exit 1; fi
	rm -rf .slipway node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache bench.json
