# Claviger: everything that can be done with the checkout. `make` lists it.
#
# All set-up happens by itself. What takes long to build (the control plane's Go binaries) is kept outside the checkout
# and built once: see dev/build-control-plane.sh; so are the proxies: see dev/fetch-proxies.sh.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test unit bench fuzz manifests lint control-plane proxies clean prerequisites

CARGO ?= cargo
RUST_NEEDED := 1.89

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: control-plane ## Show the whole story on a throw-away control plane; on a terminal it stays up to play with
	@$(CARGO) build --quiet --bin claviger --example demo
	@$(CARGO) run --quiet --example demo

test: control-plane proxies ## Run every test: the fast ones first, then the stories on a real API server
	$(CARGO) test --lib --bins
	$(CARGO) test --test stories

unit: prerequisites ## Run the tests that need no API server (seconds)
	$(CARGO) test --lib --bins

bench: control-plane proxies ## Measure: the pure parts, issuing against a plain loop of the same writes, a gate against none
	$(CARGO) bench --bench pure
	$(CARGO) bench --bench issuing
	$(CARGO) bench --bench gate --bench gate_memory

fuzz: prerequisites ## Try what must hold for any input: each target of fuzz/ for FUZZ_SECONDS (20)
	@bash dev/fuzz.sh

manifests: prerequisites ## Write crds/, and the chart's copy of it, anew from the source
	@bash dev/write-manifests.sh crds charts/claviger/crd-files
	@echo "crds/ and charts/claviger/crd-files/ are up to date"

lint: prerequisites ## Check format, lints and documentation
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --document-private-items

control-plane: prerequisites ## Find or build etcd, kube-apiserver, kube-controller-manager and helm (once; about seven minutes)
	@bash dev/build-control-plane.sh >/dev/null

proxies: ## Find or fetch three Envoys, nginx, HAProxy, Caddy and Traefik (once; half a minute)
	@bash dev/fetch-proxies.sh >/dev/null

clean: ## Remove what was built in the checkout (the control plane's binaries and the proxies stay in their cache)
	$(CARGO) clean

# One clear line for what is missing, before anything is built.
prerequisites:
	@missing() { echo "claviger: $$*" >&2; exit 1; }; \
	command -v "$(firstword $(CARGO))" >/dev/null && command -v "$${RUSTC:-rustc}" >/dev/null \
	  || missing "Rust $(RUST_NEEDED) or newer is needed and cargo or rustc is not on the PATH: install it from https://rustup.rs"; \
	found=$$("$${RUSTC:-rustc}" --version | sed -n 's/^rustc \([0-9.]*\).*/\1/p'); \
	[ "$$(printf '%s\n' "$(RUST_NEEDED)" "$$found" | sort -V | head -n 1)" = "$(RUST_NEEDED)" ] \
	  || missing "Rust $(RUST_NEEDED) or newer is needed, found $$found: run rustup update"; \
	command -v "$${CC:-cc}" >/dev/null \
	  || missing "a C compiler is needed (for aws-lc, the TLS library) and $${CC:-cc} is not on the PATH: install gcc or clang"
