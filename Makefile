# The two commands of the README are `make backup SRC=DIR` and `make test`; the rest serves them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PLUGIN := bacula_bridge/plugin/forebay-fd.so
KERNELS := filesystems/kernel filesystems/lustre/kernel
KERNEL_SOURCES := $(foreach folder,$(KERNELS),$(wildcard $(folder)/*.c $(folder)/*.h $(folder)/*.py))
PLUGIN_SOURCES := $(wildcard bacula_bridge/plugin/*.c bacula_bridge/plugin/*.h) bacula_bridge/plugin/Makefile

SHARDS ?=
NAME ?=
LEVEL ?=
PYTEST_ARGS ?=
# Test files run side by side: most of their time is waiting. 0: one after the other.
TEST_WORKERS ?= 3

.DELETE_ON_ERROR:
.PHONY: all backup test nightly lint plugin kernel bench clean

all: $(VENV)/installed plugin

backup: all
	@test -n "$(SRC)" || { echo "usage: make backup SRC=DIR [SHARDS=4] [NAME=DATASET]" >&2; exit 2; }
	@$(BIN)/forebay backup "$(SRC)" $(if $(LEVEL),--level $(LEVEL)) $(if $(SHARDS),--shards $(SHARDS)) $(if $(NAME),--name "$(NAME)")

test: all $(VENV)/test-installed lint
	$(BIN)/python -m pytest --numprocesses $(TEST_WORKERS) --dist loadfile $(PYTEST_ARGS)

# Long campaigns, bounded: each has a short sample in `make test`.
nightly: all $(VENV)/test-installed
	FOREBAY_FUZZ_ITERATIONS=$(or $(FUZZ),5000000) $(BIN)/python -m pytest --timeout 3600 tests/plugin/test_frames.py tests/plugin/test_blob.py tests/plugin/test_layout_formats.py tests/unit/filesystems/test_kernel_sanitizers.py
	FOREBAY_HISTORIES_MODEL=$(or $(MODEL),100000) $(BIN)/python -m pytest --timeout 14400 tests/unit/shards/test_decision_model.py
	FOREBAY_CHANGE_HISTORIES=$(or $(CHANGES),300) $(BIN)/python -m pytest --timeout 14400 tests/unit/filesystems/test_fanotify_histories.py
	FOREBAY_HISTORIES=$(or $(HISTORIES),40) $(BIN)/python -m pytest --timeout 14400 tests/system/test_histories.py
	FOREBAY_LUSTRE_HISTORIES=$(or $(LUSTRE),1000) $(BIN)/python -m pytest --timeout 14400 tests/unit/filesystems/lustre/test_lustre_histories.py
	FOREBAY_CEPH_HISTORIES=$(or $(CEPH),60) $(BIN)/python -m pytest --timeout 14400 tests/system/test_cephfs.py -k histories
	FOREBAY_CEPH_WALKS=all $(BIN)/python -m pytest --timeout 14400 tests/system/test_cephfs.py -k libcephfs
	FOREBAY_KILLS=$(or $(KILLS),50) $(BIN)/python -m pytest --timeout 14400 tests/system/test_crashes.py
	FOREBAY_SOAK_S=$(or $(SOAK),3600) $(BIN)/python -m pytest tests/system/soak.py
	$(MAKE) --directory tests/fuzz run PYTHON=$(abspath $(BIN)/python) FUZZ_SECONDS=$(or $(FUZZ_SECONDS),600)

lint: $(VENV)/test-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Debian splits venv and the C headers from python3; say so before pip says it in fifty lines.
$(VENV)/made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "forebay needs Python 3.11 or later; set PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "Python's venv module is missing: apt install python3-venv" >&2; exit 1; }
	@$(PYTHON) -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")))' || { echo "Python's C headers are missing: apt install python3-dev" >&2; exit 1; }
	@command -v cc >/dev/null || { echo "a C compiler is missing: apt install gcc" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/installed: $(VENV)/made pyproject.toml setup.py $(KERNEL_SOURCES)
	@echo "installing Forebay into $(VENV)" >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/test-installed: $(VENV)/installed
	@echo "installing the test tools into $(VENV)" >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

plugin: $(PLUGIN)

$(PLUGIN): $(PLUGIN_SOURCES)
	@$(MAKE) --silent --directory bacula_bridge/plugin

kernel: $(VENV)/installed

bench: all $(VENV)/test-installed
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) build *.egg-info $(addsuffix /*.so,$(KERNELS)) filesystems/kernel/_walk.c filesystems/lustre/kernel/_changelog.c
	$(MAKE) --directory bacula_bridge/plugin clean
