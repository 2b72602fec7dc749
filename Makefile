# Two commands do all the set-up: `make demo` and `make test`. Python 3.11+, pip and make are enough.
PYTHON ?= python3
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal
READY := .venv/.ready
EXECUTED := .cache/notebooks

.PHONY: demo test test-all notebooks lint types bench docs wheel clean

demo: $(READY)  ## walk both digit workloads side by side for 50 steps, then train them to the end
	$(BIN)/instep parity digits-cnn --steps 50 --precision float32 --precision bfloat16 --leaves --report digits-cnn.html
	$(BIN)/instep parity digits-mlp --steps 50 --precision float32 --precision bfloat16 --leaves --report digits-mlp.html

test: lint types notebooks  ## lint, types, the notebooks and the suite
	$(PYTEST) -m "not exhaustive" parity_tests

test-all: lint types notebooks  ## the same and the exhaustive sweep
	$(PYTEST) parity_tests

notebooks: $(EXECUTED)/.ready  ## every notebook from a clean kernel; the site shows the outputs

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/basedpyright

bench: $(READY)  ## the fused step beside the same by hand in jax + optax, and beside PyTorch
	$(BIN)/instep bench digits-cnn --against torch-eager,torch-compile,jax-plain
	$(BIN)/instep bench digits-mlp --against torch-eager,torch-compile,jax-plain

docs: $(READY) notebooks  ## the documentation, into site/; a warning is an error
	NO_MKDOCS_2_WARNING=1 DISABLE_MKDOCS_2_WARNING=true $(BIN)/python -m mkdocs build --strict

wheel: $(READY)  ## the wheel, in an environment without PyTorch: the README's first snippet
	$(BIN)/python parity_tests/wheel.py

# The stamp is written last: an interrupted install starts again from an empty environment.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit(f"instep needs Python 3.11 or newer; {sys.executable} is {sys.version.split()[0]}. Run: make PYTHON=python3.11 $(MAKECMDGOALS)")'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

# A cell that raises fails. What is executed is a copy: the notebooks are kept without outputs.
$(EXECUTED)/.ready: $(READY) $(wildcard notebooks/*.ipynb) $(shell find src -name '*.py')
	rm -rf $(EXECUTED)
	mkdir -p $(EXECUTED)
	cp notebooks/*.ipynb $(EXECUTED)
	$(PYTEST) --nbmake --overwrite $(EXECUTED)
	touch $@

clean:
	rm -rf .venv .cache site
