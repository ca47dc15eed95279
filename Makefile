# Fingerpost. `make` alone lists the targets; hack/tools pins what they call. Needs bash, git and Go.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

# One set of flags everywhere, or everything compiles twice: static, and without the paths of this machine.
export CGO_ENABLED := 0
export GOFLAGS := $(strip $(filter-out -trimpath,$(shell go env GOFLAGS 2>/dev/null)) -trimpath)

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
FUZZ_TIME ?= 30s
SEEDS ?= 20
QUESTIONS ?= 10000
TOOLS := bin/tools
# Modules with Go packages of our own, and all modules.
SOURCES := . hack/tools
MODULES := $(SOURCES) hack/tools/lint hack/k8s hack/helm hack/bench/coredns
# What generate and manifests write.
GENERATED := api config/crd/bases config/rbac/role.yaml dnsserver/control/controlpb dnsserver/steering/steeringpb dnsserver/mesh/meshpb dnsserver/changes/changespb docs/api.md charts/fingerpost

# Recipes whose tests need a control plane, or DNS tools, start with this. What is missing is fetched on first use; the
# demo gets what it needs by itself.
define environment
KUBEBUILDER_ASSETS=$$(go run ./hack/controlplane/cmd assets); export KUBEBUILDER_ASSETS; \
PATH=$$(hack/deps); export PATH;
endef

.PHONY: help
help: ## List the targets.
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ See it work

.PHONY: demo
demo: go-check ## Two datacenters on this machine, from kubectl apply to dig, as a story. Leaves nothing behind.
	@go build -o bin/demo ./hack/demo; exec bin/demo

.PHONY: demo-up
demo-up: go-check ## The same, left running; prints how to use it.
	@go build -o bin/demo ./hack/demo; exec bin/demo up

.PHONY: demo-down
demo-down: go-check ## Stop what demo-up left running.
	@go build -o bin/demo ./hack/demo; exec bin/demo down

##@ Develop

.PHONY: build
build: go-check ## Static binaries, stamped with the version, into bin/.
	go build -ldflags "-s -w -X main.version=$(VERSION)" -o bin/ ./cmd/...

.PHONY: images
images: go-check ## OCI archives of all images, for amd64 and arm64, with SBOMs, into bin/images. Needs apt, and no builder.
	@go run ./hack/images/cmd -version '$(VERSION)'

.PHONY: chart
chart: go-check ## The Helm chart, packed, into bin/.
	$$(go run ./hack/controlplane/cmd charttools)/helm4 package charts/fingerpost --destination bin

.PHONY: cluster-up
cluster-up: go-check ## A real Kubernetes on this machine, with a node for each of three datacenters. Needs root.
	@go build -o bin/cluster ./hack/cluster/cmd; exec bin/cluster up

.PHONY: cluster-down
cluster-down: go-check ## Stop what cluster-up started, and leave nothing behind.
	@go build -o bin/cluster ./hack/cluster/cmd; exec bin/cluster down

.PHONY: generate
generate: generate-api generate-proto generate-docs ## Deep copies, apply configurations, protobuf code, references of API and chart.

.PHONY: generate-api
generate-api: go-check $(TOOLS)/.generators
	$(TOOLS)/controller-gen object applyconfiguration paths=./api/...

.PHONY: generate-proto
generate-proto: go-check $(TOOLS)/.generators
	$(TOOLS)/protogen -plugin $(TOOLS)/protoc-gen-go -plugin $(TOOLS)/protoc-gen-go-grpc $(wildcard dnsserver/*/*pb/*.proto)

.PHONY: generate-docs
generate-docs: go-check $(TOOLS)/.generators
	$(TOOLS)/crd-ref-docs --log-level=ERROR --source-path=api/v1alpha1 --config=hack/docs/crd-ref-docs.yaml --renderer=markdown --output-path=docs/api.md
	$$(go run ./hack/controlplane/cmd charttools)/helm-docs --log-level=warning --sort-values-order=file --chart-search-root=charts

.PHONY: manifests
manifests: go-check $(TOOLS)/.generators ## CRDs into config/crd/bases, RBAC of the controllers' markers into config/rbac, both into the chart.
	$(TOOLS)/controller-gen crd paths=./api/... output:crd:dir=config/crd/bases
	$(TOOLS)/controller-gen rbac:roleName=fingerpost-manager paths=./controllers/... output:rbac:dir=config/rbac
	go run ./hack/chart

.PHONY: golden
golden: go-check ## Rewrite golden files; read the diff before you commit it.
	@$(environment) go test $$(grep -rl --include='*_test.go' 'flag.Bool("update"' . | xargs -n1 dirname | sort -u) -update

##@ Check

.PHONY: test
test: go-check ## All tests, after getting what they need.
	@$(environment) set -x; go test -timeout 20m ./...; go -C hack/tools test ./...

.PHONY: race
race: go-check ## All tests of the main module under the race detector (needs a C compiler).
	@$(environment) set -x; CGO_ENABLED=1 go test -race -timeout 40m ./...

.PHONY: conformance
conformance: go-check ## Answers beside NSD, Knot and BIND: SEEDS (20) sets of zones, QUESTIONS (10,000) about each; genreport's checks; Zonemaster.
	@$(environment) PATH=$$(hack/deps zonemaster-cli); set -x; \
	go test -count=1 -v -timeout 12h ./dnsserver/conformance -seeds $(SEEDS) -questions $(QUESTIONS) -zonemaster

.PHONY: e2e
e2e: go-check ## The whole on three real nodes and two API servers, from helm install to uninstall, as a story. Needs root.
	@PATH=$$(hack/deps dig); export PATH; exec go test -count=1 -v -timeout 60m ./hack/e2e -e2e

.PHONY: fuzz
fuzz: go-check ## Every fuzz target for FUZZ_TIME (30s) each.
	@hack/fuzz $(FUZZ_TIME)

.PHONY: bench
bench: go-check ## Benchmarks of the packages, then hack/bench (peers, propagation, failover of the leader): over an hour.
	@$(environment) set -x; go test -run '^$$' -bench . -benchmem ./...; go run ./hack/bench

.PHONY: lint
lint: go-check $(TOOLS)/golangci-lint ## golangci-lint, with kube-api-linter on api/.
	$(TOOLS)/golangci-lint run ./...
	cd hack/tools && $(abspath $(TOOLS))/golangci-lint run ./...

.PHONY: verify
verify: go-check ## Generated files are those of the sources; formatted, vetted and tidy.
	@before=$$(mktemp); trap 'rm -f "$$before"' EXIT; \
	sums() { git ls-files -co --exclude-standard -- $(GENERATED) | sort -u | while read -r f; do [[ ! -f $$f ]] || sha256sum "$$f"; done; }; \
	sums >"$$before"; $(MAKE) --no-print-directory generate manifests; \
	diff "$$before" <(sums) || { echo "the files above were out of date and are now regenerated: review and commit them" >&2; exit 1; }
	@unformatted=$$(git ls-files -co --exclude-standard '*.go' | xargs gofmt -l); [[ -z $$unformatted ]] || { echo "not formatted (run gofmt -w):" $$unformatted >&2; exit 1; }
	@kubernetes=$$(go list -deps ./cmd/dnsserver | grep -E '^(k8s|sigs\.k8s)\.io/' || true); [[ -z $$kubernetes ]] || { echo "dnsserver links Kubernetes:" $$kubernetes >&2; exit 1; }
	@for m in $(SOURCES); do (set -x; go -C "$$m" vet ./...); done
	@for m in $(MODULES); do (set -x; go -C "$$m" mod tidy -diff); done

.PHONY: presubmit
presubmit: verify lint test ## What must be green before a change is merged.

# Tools are built once a checkout and again when their pins change.
$(TOOLS)/.generators: hack/tools/go.mod hack/tools/go.sum $(wildcard hack/tools/protogen/*.go)
	go -C hack/tools build -o $(abspath $(TOOLS))/ tool ./protogen
	@touch $@

$(TOOLS)/golangci-lint: hack/tools/lint/go.mod hack/tools/lint/go.sum
	go -C hack/tools/lint build -o $(abspath $@) sigs.k8s.io/kube-api-linter/cmd/golangci-lint-kube-api-linter

.PHONY: go-check
go-check:
	@hack/go-check
