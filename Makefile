# `make demo` and `make test` install what a fresh Debian with Rust lacks, and need nothing else.

CARGO ?= cargo

.PHONY: demo test soak fuzz lint bench setup

demo: setup
	$(CARGO) run --release --locked --quiet -- demo

test: setup
	$(CARGO) test --locked --lib --bins --tests --no-fail-fast

# Random faults for SOAK_S seconds; what was found is kept.
SOAK_S ?= 600

soak: setup
	@mkdir -p load/results
	{ echo "# $$(date -u +%F), $$(nproc) cores, commit $$(git rev-parse --short HEAD)"; \
	  TURNPIKE_SOAK_S=$(SOAK_S) $(CARGO) test --locked --test nemesis -- \
	  --nocapture --test-threads=1 2>&1; } | tee load/results/$$(date -u +%F)-soak.txt; \
	! grep -q '^test result: FAILED\|^error' load/results/$$(date -u +%F)-soak.txt

# Bytes that do harm as requests, looked for FUZZ_S seconds.
fuzz: setup
	./load/fuzz.sh

lint:
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings

bench: setup
	$(CARGO) bench --locked

# cmake and a C compiler build zlib-ng, which Pingora brings; tests start redis-server.
setup:
	@./load/setup.sh
