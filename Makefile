PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test test-slow test-all lint weights clean

demo: $(READY)
	@mkdir -p out
	$(BIN)/pansharpen fuse sample_data/pan.tif sample_data/ms.tif -o out/fused.tif --overwrite --report out/report.html
	$(BIN)/pansharpen evaluate out/fused.tif --pan sample_data/pan.tif --ms sample_data/ms.tif
	@echo
	@echo "fused GeoTIFF: out/fused.tif"
	@echo "report:        out/report.html"

# All but what is slow by nature: runs that are fuzzed, killed, clustered, or processes of their own.
test: $(READY)
	$(BIN)/pytest -n auto --dist worksteal -m "not slow"

test-slow: $(READY)
	$(BIN)/pytest -n auto --dist worksteal -m slow

test-all: $(READY)
	$(BIN)/pytest -n auto --dist worksteal

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The shipped weights, trained anew: network, band count (- for any) and minutes on one thread. `make weights-pnn4` trains
# one of them, `make -n weights` lists the commands, and an interrupted training goes on where it was (docs/training.md).
DATA ?= ../shared/data/train
VALIDATION ?= $(dir $(DATA:/=))val
SHIPPED := \
	glpnet/-/413 \
	fusionnet/4/87 fusionnet/8/72 \
	pnn/4/25 pnn/8/25 \
	pannet/4/54 pannet/8/44 \
	msdcnn/4/25 msdcnn/8/25 \
	u2net/4/90 u2net/8/281 \
	pantiny/4/32 pantiny/-/34 \
	pantiny-small/4/28 pantiny-small/-/28 \
	pancrafter/4/45 pancrafter/8/48

define TRAINED
.PHONY: weights-$(1)$(2)
weights: weights-$(1)$(2)
weights-$(1)$(2): $(READY)
	$(BIN)/pansharpen train $(DATA) --validation $(VALIDATION) --config $(firstword $(wildcard weights/$(1).toml) weights/train.toml) --network $(1) \
		$(if $(2),--bands $(2)) --minutes $(3) --threads 1 --overwrite -o weights/$(1)$(2).safetensors
endef
part = $(filter-out -,$(word $(1),$(subst /, ,$(2))))
$(foreach row,$(SHIPPED),$(eval $(call TRAINED,$(call part,1,$(row)),$(call part,2,$(row)),$(call part,3,$(row)))))

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
