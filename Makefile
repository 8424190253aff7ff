# Every target says what it is for behind its ##; `make` without a target prints them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# The ports of the quick start: the bridge for machines and people, its metrics, the sample upstream (its address is part of the sample site).
PORT ?= 9876
METRICS_PORT ?= 9877

# Names of images, and what builds them: for this machine, or with PLATFORMS=linux/amd64,linux/arm64 as a list of several (podman, buildah).
CONTAINER_TOOL ?= podman
PLATFORMS ?=
IMAGE ?= quay.io/ipxe-bridge/ipxe-bridge
TAG ?= $(shell sed -n 's/^version = "\(.*\)"$$/\1/p' Cargo.toml | head -1)

# What the name stood for before goes, a list or an image: a list would keep it, and nodes take the first that fits.
forget = { $(CONTAINER_TOOL) manifest rm $(1) || $(CONTAINER_TOOL) rmi $(1) || true; } >/dev/null 2>&1;
# Buildah 1.28, that of Debian 12, does not know by itself what it runs on.
build_image = $(if $(PLATFORMS),$(call forget,$(1))) $(CONTAINER_TOOL) build --build-arg BUILDPLATFORM=linux/$(shell uname -m | sed 's/x86_64/amd64/; s/aarch64/arm64/') $(if $(PLATFORMS),--platform $(PLATFORMS) --manifest,-t) $(1)
say = @printf '==> %s\n'

.PHONY: help
help: ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build the program and the sample upstream
	$(say) "building (the first time takes about 5 minutes on two cores) ..."
	cargo build --locked --bin ipxe-bridge --example upstream

.PHONY: run
run: build ## Run the bridge on the sample site, without a cluster, until Ctrl-C
	@PORT=$(PORT) METRICS_PORT=$(METRICS_PORT) bash config/samples/run.sh

.PHONY: run-server
run-server: build ## Run the bridge against the cluster of the current kubeconfig
	@target=$$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/'); \
	exec "$$target/debug/ipxe-bridge" server --port $(PORT) --metrics-port $(METRICS_PORT)

.PHONY: boot-image
boot-image: ## Make an ISO/USB image and a TFTP folder that boot into BRIDGE=http://... (docs/boot-image.md)
	@deploy/boot-image/make.sh

.PHONY: fmt
fmt: ## Format the code
	cargo fmt

.PHONY: check
check: ## What every commit passes: format, lints, documentation, unit tests
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --quiet
	IPXE_BRIDGE_MUTATIONS=200000 cargo test --locked --lib

.PHONY: test
test: ## Everything: unit tests, a real API server, real boots in QEMU, the README's commands
	$(say) "tools: etcd, kube-apiserver, kube-controller-manager and kubectl (built once, about 10 minutes; KUBEBUILDER_ASSETS names a folder that has them)"
	tests/tools/install.sh control-plane
	$(say) "tools: QEMU, iPXE and a guest kernel (Debian packages, once)"
	tests/tools/install.sh boot
	$(say) "tools: DHCP servers, TFTP clients, the next Debian's iPXE (Debian packages, once)"
	tests/tools/install.sh netboot
	$(say) "tools: OLM's own programs and validators, kustomize (built once, about 8 minutes), buildah and skopeo (Debian packages)"
	tests/tools/install.sh olm
	tests/tools/install.sh olm-v1
	tests/tools/install.sh image
	$(say) "tools: an OpenTelemetry Collector (built once, about 2 minutes), Prometheus and Chromium (Debian packages), axe (npm)"
	tests/tools/install.sh collector
	tests/tools/install.sh prometheus
	tests/tools/install.sh browser
	$(say) "building the program and the tests (the first time takes about 5 minutes on two cores) ..."
	cargo test --locked --no-run
	$(say) "unit tests, HTTP, cluster, pods and boots (about 8 minutes) ..."
	cargo test --locked -- $(TESTS)
	$(say) "the README's commands in a clean clone ..."
	tests/readme.sh

.PHONY: test-boot
test-boot: ## Only the boots in QEMU; the consoles of failed ones are in target/boot-logs
	cargo test --locked --test suite -- boots:: --nocapture

.PHONY: test-cluster
test-cluster: ## Only the tests with a real kube-apiserver
	cargo test --locked --test suite -- cluster:: operator:: --nocapture

.PHONY: test-olm
test-olm: ## Only bundle, catalog, image, releases, the installation page, and an install by a real OLM
	cargo test --locked --test suite -- bundle:: deploy:: generated:: image:: install:: olm:: olm_v1:: release:: --nocapture

.PHONY: test-image
test-image: ## Build the whole Containerfile for amd64, twice and compare the bytes, and for arm64; run both (about an hour; not part of test)
	tests/image.sh $(ARCHITECTURES)

.PHONY: bench
bench: ## Measure against nginx and matchbox, write docs/benchmarks.md (25 minutes; ROWS="warm tls" for some rows, ARGS=--list for their names)
	$(say) "peers: nginx and wrk (Debian packages), matchbox (built with Go, once)"
	@tests/tools/install.sh bench >/dev/null
	$(say) "building the release binary and the benchmark (the first time takes about 15 minutes on two cores) ..."
	cargo build --locked --release --bin ipxe-bridge --example bench
	$(say) "measuring; leave the machine alone meanwhile ..."
	@target=$$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/'); \
	"$$target/release/examples/bench" --bridge "$$target/release/ipxe-bridge" --folder "$$target/bench" \
	  --tools "$$(tests/tools/install.sh bench)" $(ARGS) $(ROWS)
	@[ -n "$(ARGS)$(ROWS)" ] || bench/netboot.sh

.PHONY: generate
generate: ## Write the files that are made from the code: docs/openapi.json, config/crd/bases, deploy/install.yaml, expected scripts and objects
	UPDATE=1 IPXE_BRIDGE_TEST_ALL=1 cargo test --locked --test suite -- generated:: scripts::every_form operator::builders

.PHONY: bundle
bundle: ## Write the bundle for OperatorHub from config and the code, and with it everything else that generate writes
	UPDATE=1 IPXE_BRIDGE_TEST_ALL=1 cargo test --locked --test suite -- generated::

.PHONY: verify
verify: ## Fail if a generated file is not current
	IPXE_BRIDGE_TEST_ALL=1 cargo test --locked --test suite -- generated:: scripts::every_form operator::builders

.PHONY: deny
deny: ## Check licences, sources and doubled crates (installs cargo-deny once)
	@command -v cargo-deny >/dev/null || { printf '==> %s\n' "installing cargo-deny (about 5 minutes, once) ..."; cargo install --locked cargo-deny@0.20.2; }
	cargo deny --locked check licenses bans sources

.PHONY: release
release: ## Prepare a release: VERSION=0.2.0 writes the version everywhere, VERSION=sha256:... names the pushed image by its digest
	deploy/release.sh "$(VERSION)"

.PHONY: image
image: ## Build the image of operator and bridges with CONTAINER_TOOL (podman, buildah or docker), for this machine or, not with docker, for PLATFORMS
	$(call build_image,$(IMAGE):$(TAG)) --build-arg REVISION=$$(git rev-parse HEAD) -f Containerfile .

.PHONY: bundle-image
bundle-image: ## Build the bundle's image, which is for every machine
	$(CONTAINER_TOOL) build -t $(IMAGE)-operator-bundle:v$(TAG) -f bundle.Dockerfile .

.PHONY: catalog-image
catalog-image: ## Build the catalog's image, for this machine or, not with docker, for PLATFORMS
	$(call build_image,$(IMAGE)-operator-catalog:v$(TAG)) -f deploy/catalog/Dockerfile deploy/catalog

.PHONY: deploy
deploy: ## Install definitions, roles and operator into the cluster of the current kubeconfig
	kubectl apply --server-side -k config/default

.PHONY: undeploy
undeploy: ## Remove every bridge and override, then what deploy installed
	if kubectl get crd ipxebridges.ipxe-bridge.io >/dev/null 2>&1; then \
	  kubectl delete ipxb --all; \
	  kubectl wait --for=delete pod -A -l app.kubernetes.io/managed-by=ipxe-bridge-operator --timeout=6m; \
	fi
	kubectl delete --ignore-not-found -k config/default

.PHONY: clean
clean: ## Remove what was built in this folder (the tools' cache stays)
	cargo clean
