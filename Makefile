# `make demo`, `make lint` and `make test` do all set-up themselves: a virtual environment in .venv, then every package.
PYTHON ?= python3
TORCH ?= torch==2.13.0
CUDA ?= cuda13
RUN := .venv/bin/python
# In a terminal pip shows how far its gigabytes have come; a log stays short.
PIP := $(RUN) -m pip install $(shell [ -t 2 ] || echo --quiet)

.PHONY: demo demo-fast demo-table2 lint test test-all soak install slurm chromium clean

# The main job; demo-fast is stage I alone, for a minute, on fewer people.
demo: PEOPLE = --people 500 --views 6
demo-fast: PEOPLE = --people 150 --views 4
demo-fast: SHORTER = train.pairs.I=4000 train.pairs.joint=0 log.every=1000
demo demo-fast: install
	mkdir -p -m 700 runs runs/$@
	$(RUN) shards/build.py synthetic --out runs/$@/shards $(PEOPLE) --poses everyday --turn 120 \
	  --validation 16 --height 64 --width 32
	$(RUN) launch/submit.py --config demo run=runs/$@ data.root=runs/$@/shards $(SHORTER) --follow
	$(RUN) launch/submit.py --job evaluate run=runs/$@ --follow
	$(RUN) -m mscgan.generate --run runs/$@ --pairs 8
	$(RUN) -m mscgan.report runs/$@
	@echo "pictures: runs/$@/pairs-test.png; scores: runs/$@/evaluation.json"
	@echo "all of it and the curves on one page, for a browser: runs/$@/report.html"
	@echo "to play with it, with your own pictures and poses: $(RUN) -m mscgan.web --run runs/$@"

# The rows of the paper's table 2 on the same people, with shorter schedules, one after another; it can be stopped, and
# the same command goes on.
demo-table2: install
	mkdir -p -m 700 runs runs/demo
	[ -f runs/demo/shards/manifest.json ] || $(RUN) shards/build.py synthetic --out runs/demo/shards --people 500 \
	  --views 6 --poses everyday --turn 120 --validation 16 --height 64 --width 32
	$(RUN) launch/submit.py --job table2 --config demo data.root=runs/demo/shards
	@cat runs/table2-demo/table2.md

lint: .venv/linters
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

# Tests start many processes at once; the demo takes all cores there are.
test test-all: export OMP_NUM_THREADS ?= 1

# Two processes, as many a test waits (tests/conftest.py: what shares one, and the order).
test: install slurm chromium
	$(RUN) -m pytest -n 2 --dist loadgroup --no-loadscope-reorder

test-all: install slurm chromium
	$(RUN) -m pytest -m "slow or not slow"

# Random faults against a small run, for half an hour; FAULTS and SEED choose how many and which.
FAULTS ?= 200
SEED ?= 0
soak: install
	CUDA_VISIBLE_DEVICES= OMP_NUM_THREADS=1 $(RUN) -m tests.soak --faults $(FAULTS) --seed $(SEED)

install: .venv/installed

# torch first, so that a build that is chosen here (TORCH=...) is kept by what follows; and with the torchvision that
# fits it, since alone a newer one would bring a newer torch. Its index may lack the versions of constraints.txt.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) $(TORCH) torchvision
	$(PIP) --constraint constraints.txt --editable .[$(CUDA),metrics,web,test]
	touch $@

.venv/linters: .venv/installed
	$(PIP) --constraint constraints.txt --editable .[lint]
	touch $@

# A real SLURM for tests/slurm, where this user may install it; elsewhere those tests skip and say so.
slurm:
	@if ! command -v slurmctld >/dev/null && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends slurm-wlm munge >/dev/null; fi

# A browser for tests/test_report.py and test_web_page.py, where this user may install it: 113 MB and 20 seconds. Ubuntu
# has none in apt.
chromium:
	@if ! command -v chromium >/dev/null && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends chromium >/dev/null \
	  || echo "no Chromium could be installed; the tests that need one skip"; fi

clean:
	rm -rf .venv build runs/demo runs/demo-fast runs/table2-demo
