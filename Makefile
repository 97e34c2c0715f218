PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test lint clean

demo: $(READY)
	@mkdir -p out
	$(BIN)/pansharpen fuse sample_data/pan.tif sample_data/ms.tif -o out/fused.tif --overwrite --report out/report.html
	$(BIN)/pansharpen evaluate out/fused.tif --pan sample_data/pan.tif --ms sample_data/ms.tif
	@echo
	@echo "fused GeoTIFF: out/fused.tif"
	@echo "report:        out/report.html"

test: $(READY)
	$(BIN)/pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Everything that can be made again in seconds; delete .venv by hand to install afresh.
clean:
	rm -rf out build dist .pytest_cache .hypothesis .mypy_cache .ruff_cache
	find . -path ./.venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

# A .venv that an interrupted run left without pip is made anew.
$(READY): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) not found; install Python 3.11 or newer, or say make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and f"error: pansharpen needs Python 3.11 or newer, and $(PYTHON) is {v[0]}.{v[1]}; say make PYTHON=/path/to/newer/python3")'
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@echo "installing into .venv (some minutes the first time) ..."
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
