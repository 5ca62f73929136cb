# `make demo` and `make test` install what a fresh Debian with Rust lacks, and need nothing else.

CARGO ?= cargo

.PHONY: demo test lint bench setup

demo: setup
	$(CARGO) run --release --locked --quiet -- demo

test: setup
	$(CARGO) test --locked --lib --bins --tests --no-fail-fast

lint:
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings

bench: setup
	$(CARGO) bench --locked

# cmake and a C compiler build zlib-ng, which Pingora brings; tests start redis-server.
setup:
	@./load/setup.sh
