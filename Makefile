# Everything a developer runs, and what CI runs: the same targets.
.DEFAULT_GOAL := help
.PHONY: help run run-distributed demo test test-embedded test-web test-openapi test-deploy test-faults test-upgrade deb lint bench bench-compare bench-instructions services-up services-down cluster-up cluster-down test-cluster run-cluster

# For `make bench`: embedded or distributed; ARGS are those of `seckill bench --help`.
BACKEND ?= embedded
BENCH = $(if $(filter distributed,$(BACKEND)),scripts/services up && . target/services.env && ,SECKILL__BACKEND=$(BACKEND) )target/release/seckill bench $(ARGS)

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## Serve with nothing installed: everything in one process, data in ./data
	cargo run --release

run-distributed: services-up ## Serve with MariaDB, Redis and RabbitMQ, started here on private ports
	. target/services.env && cargo run --release

run-cluster: cluster-up ## Serve with clusters of all three, started here as root; break them with scripts/cluster
	. target/cluster.env && cargo run --release

demo: ## Watch a sale: 100,000 buyers, 1,000 units, some never pay, and the proof
	cargo run --release -- demo

test: services-up ## Test everything on both backends, with real servers
	scripts/standard-webhooks
	. target/services.env && cargo test

test-embedded: ## Test what needs no servers
	cargo test --lib --test model
	cargo test --tests embedded -- --skip distributed

test-web: ## Test the pages in a real browser (installs chromium and node on Debian; minutes)
	cargo build
	scripts/web test

test-openapi: services-up ## Test that the API does what its description says, on both backends (schemathesis, a generated client)
	cargo build
	scripts/test-openapi

test-deploy: ## Try the dashboard, the alerts, nginx and Caddy on a running sale (installs them on Debian)
	cargo build
	scripts/test-dashboards
	scripts/test-proxies

test-faults: services-up ## Break everything under load, and count what was lost (minutes)
	@# Optimised: several sales at once ask much of a small machine.
	. target/services.env && cargo test --release --features failpoints --test faults -- --include-ignored --test-threads=5 --nocapture --skip hostile_sockets --skip overload --skip rolling_upgrade
	@# These compare times: nothing else may run beside them.
	. target/services.env && cargo test --release --features failpoints --test faults -- hostile_sockets overload --include-ignored --test-threads=1 --nocapture

test-upgrade: services-up ## Upgrade two instances under load, one by one: make test-upgrade OLD=PROGRAM-OF-THE-VERSION-BEFORE
	. target/services.env && SECKILL_OLD=$(abspath $(OLD)) cargo test --test faults rolling_upgrade -- --include-ignored --nocapture

test-cluster: ## Break the nodes of Redis, RabbitMQ and Galera clusters, by themselves and under a sale (root; a quarter of an hour)
	cargo build
	scripts/test-cluster
	scripts/test-cluster-sale
	scripts/cluster down

lint: ## Format, clippy and documentation without a warning
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	@# The server alone: nothing of it may need the bench.
	cargo clippy --no-default-features --lib --bins -- -D warnings
	scripts/web types
	RUSTDOCFLAGS='-D warnings' cargo doc --no-deps --document-private-items
	@if cargo deny --version >/dev/null 2>&1; then cargo deny check bans licenses sources; else echo 'cargo-deny is not installed: skipped'; fi

bench: ## Measure a backend: make bench BACKEND=distributed
	cargo build --release
	$(BENCH)

bench-compare: ## Compare with another revision, pair by pair: make bench-compare BASE=HEAD~1
	@git rev-parse --verify --quiet '$(BASE)^{commit}' >/dev/null || { echo 'BASE must be a git revision' >&2; exit 2; }
	rm -rf target/base/tree && mkdir -p target/base/tree && git archive '$(BASE)' | tar -x -C target/base/tree
	cd target/base/tree && cargo build --release --target-dir ../build
	cargo build --release
	$(BENCH) --against target/base/build/release/seckill

# Prints the change against the run before. Against a kept one: `GUNGRAUN_SAVE_BASELINE=old make bench-instructions`,
# then, after the change, `GUNGRAUN_BASELINE=old make bench-instructions`.
# The runner must be of the same version as the library; it need not be fast.
bench-instructions: ## Count the instructions of the hot path's pieces (valgrind), and the change since the last time
	@command -v valgrind >/dev/null || { echo 'valgrind is not installed; on Debian: apt-get install -y valgrind' >&2; exit 2; }
	@version=$$(cargo pkgid gungraun-runner | sed 's/.*@//') && \
	if [ "$$(target/tools/bin/gungraun-runner --version 2>/dev/null)" != "gungraun-runner $$version" ]; then \
	  cargo install --locked --debug --root target/tools --version "=$$version" gungraun-runner; \
	fi
	GUNGRAUN_RUNNER='$(CURDIR)/target/tools/bin/gungraun-runner' cargo bench --bench hot_path

deb: ## Pack a Debian package: target/deb
	cargo build --release
	scripts/deb

services-up: ## Start MariaDB, Redis and RabbitMQ on private ports (installs them on Debian)
	scripts/services up

services-down: ## Stop them
	scripts/services down

cluster-up: ## Start clusters of the three on this machine, each node in a network namespace (installs them on Debian; root)
	scripts/cluster up

cluster-down: ## Stop them, and remove their data
	scripts/cluster down
