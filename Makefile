# The commands of this project. `make up` and `make test` do all of their own set-up on Debian or Ubuntu.

STACK := target/release/local-stack
DENY := target/tools/bin/cargo-deny

.PHONY: setup build up test check bench clean

setup: ## install what is missing: PostgreSQL 15 or later, nats-server, age
	@deploy/local/install.sh

build: ## every binary, optimised
	cargo build --release --locked --workspace --bins

up: setup build ## a running system with a small sample; Ctrl-C stops it
	$(STACK) up

# The binaries under test are the optimised ones, beside local-stack; the tests themselves are built as they build fastest.
test: setup build ## every test, on throw-away stacks
	$(STACK) exec --only postgres -- cargo test --locked --workspace --no-fail-fast

check: $(DENY) ## format, lints, documentation, dependencies and their licences
	cargo fmt --all --check
	cargo clippy --release --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --release --locked --workspace --no-deps --quiet
	$(DENY) --log-level error check licenses bans sources

# Built once, in two to three minutes; kept where `make clean` removes it.
$(DENY):
	cargo install --quiet --locked --root target/tools --version 0.20.2 cargo-deny

bench: setup build ## the benchmarks beside the peers, in one run; writes bench/results.json and a plot
	$(STACK) exec -- target/release/bench

clean: ## what was built, not the data of `make up`
	cargo clean
