# make lists the targets. Nothing has to be installed by hand but go, make, gcc (for the race detector), node with npm.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

FUZZTIME  ?= 60s
BENCHTIME ?= 1s
SOAKTIME  ?= 10m
PACKAGES  ?= ./...

LINT := bin/golangci-lint
BUF  := tools/buf/node_modules/.bin/buf
OIDC := cmd/tokenbrokerd/testdata/oidc
BROWSER := web/testdata/browser
TSWORKER := examples/typescript

# The interpreter with grpcio and protobuf that the examples in Python run in: Debian's own, which other ones in PATH may hide.
export PYTHON ?= /usr/bin/python3

# What tests run against. They find grpcurl in PATH.
PEERS := bin/grpcurl $(OIDC)/node_modules/.package-lock.json $(BROWSER)/node_modules/.package-lock.json $(TSWORKER)/node_modules/.package-lock.json \
	need-debian
export PATH := $(CURDIR)/bin:$(PATH)

# What a command prints is shown when it ends, so that jobs that run side by side do not mix.
PARALLEL := $(MAKE) --no-print-directory --keep-going -j2 --output-sync=target

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## the static binaries, into bin/
	CGO_ENABLED=0 go build -trimpath -o bin/ ./cmd/...

.PHONY: test
test: ## everything that has to pass: lint, protocol, tests under the race detector, a moment of fuzz and bench
	@$(PARALLEL) deps
	@$(PARALLEL) go-test lint proto-check mod-check
	@$(PARALLEL) fuzz bench FUZZTIME=100x BENCHTIME=1x

.PHONY: go-test
go-test: need-cc $(PEERS) ## the tests alone, under the race detector
	go test -race -p 4 -timeout 40m $(PACKAGES)

.PHONY: lint
lint: $(LINT) bin/messagevet ## golangci-lint and messagevet, and checks that they still find what they have to find
	$(LINT) run
	go vet -vettool=$(CURDIR)/bin/messagevet $(PACKAGES)
	cd tools/messagevet && go test ./...
	@cd tools/golangci-lint/testdata && diff -u expected.txt <($(CURDIR)/$(LINT) run -c $(CURDIR)/.golangci.yml \
		--output.text.print-issued-lines=false --output.text.colors=false --show-stats=false) \
		|| { echo 'the linters do not find what expected.txt says they must' >&2; exit 1; }

.PHONY: proto-check
proto-check: $(BUF) generate-check ## lint the protocol, compare it with the baseline and with the generated code
	$(BUF) format --diff --exit-code proto
	$(BUF) lint
	$(if $(wildcard proto/baseline.binpb),$(BUF) breaking proto --against proto/baseline.binpb,@echo 'no baseline to compare the protocol with; make baseline writes it')

.PHONY: generate
generate: $(BUF) ## Go code from the .proto files, and what the example in Python reads instead of code
	$(BUF) generate
	$(BUF) build proto --path proto/tokenbroker/v1/token_service.proto --exclude-source-info -o examples/python/tokenbroker.binpb

.PHONY: docs
docs: ## docs/providers.md and the tables of docs/errors.md, from the profiles and package explain
	go run ./docs/gen

# The sums of the generated files, here and made anew in a place apart.
sums = (cd $(1) && find proto -name '*.pb.go' -exec sha256sum {} + | sort -k 2)

.PHONY: generate-check
generate-check: $(BUF)
	@t=$$(mktemp -d) && trap 'rm -rf "$$t"' EXIT && $(BUF) generate -o "$$t" && diff <($(call sums,.)) <($(call sums,"$$t")) \
		|| { echo 'the generated code is not what the .proto files say: make generate' >&2; exit 1; }

.PHONY: baseline
baseline: $(BUF) ## take the protocol as it is for what later ones must not break
	$(BUF) build proto -o proto/baseline.binpb

.PHONY: mod-check
mod-check:
	go mod tidy -diff

# What an awk program prints of the test files.
in-tests = find . \( -name node_modules -o -name testdata \) -prune -o -name '*_test.go' -exec awk $(1) {} +

.PHONY: fuzz
fuzz: ## each fuzz target for FUZZTIME (60s, or 1000x)
	@$(call in-tests,'/^func Fuzz/ { print FILENAME " " $$2 }') | while read -r file name; do \
		go test -run '^$$' -fuzz "^$${name%%(*}\$$" -fuzztime $(FUZZTIME) "$$(dirname "$$file")" </dev/null; done

.PHONY: bench
bench: ## each benchmark for BENCHTIME (1s, or 1x), then the broker against bare grpc-go (see bench/README.md; with 1x a trial)
	@dirs=$$($(call in-tests,'/^func Benchmark/ { print FILENAME; nextfile }') | xargs -r dirname | sort -u); \
		[ -z "$$dirs" ] || go test -run '^$$' -bench . -benchmem -benchtime $(BENCHTIME) $$dirs
	go run ./bench $(if $(filter 1x,$(BENCHTIME)),-short)

.PHONY: soak
soak: need-cc $(PEERS) ## the long run against a real OAuth server, for SOAKTIME; ten thousand crash images of the store; attacks at full count; a fleet of workers
	TOKENBROKER_SOAK=$(SOAKTIME) go test -race -count 1 -timeout 0 -run '^TestSoak' -v ./cmd/tokenbrokerd
	TOKENBROKER_CRASH_IMAGES=10000 go test -count 1 -timeout 0 -run '^TestCrashImages$$' -v ./store
	TOKENBROKER_SOAK=$(SOAKTIME) go test -count 1 -timeout 0 -run '^TestP[0-9]' -v ./server ./audit
	TOKENBROKER_SOAK=$(SOAKTIME) go test -count 1 -timeout 0 -parallel 1 -v ./attack
	TOKENBROKER_SOAK=$(SOAKTIME) go test -race -count 1 -timeout 0 -v ./fleet

.PHONY: demo
demo: $(PEERS) ## a walk through the broker, step by step
	go test -count 1 -run '^TestWalkthrough' -v ./cmd/tokenbrokerd

.PHONY: deps
deps: $(LINT) bin/messagevet $(BUF) $(PEERS) ## install what tests and checks call, at the versions under tools/

.PHONY: clean
clean: ## remove what make built or installed
	rm -rf bin tools/buf/node_modules $(OIDC)/node_modules $(BROWSER)/node_modules $(TSWORKER)/node_modules $(TSWORKER)/dist

$(LINT): tools/golangci-lint/go.mod tools/golangci-lint/go.sum
	cd $(<D) && go build -o $(CURDIR)/bin/ github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	@touch $@

bin/messagevet: $(wildcard tools/messagevet/*)
	cd tools/messagevet && go build -o $(CURDIR)/bin/ .
	@touch $@

bin/grpcurl: tools/grpcurl/go.mod tools/grpcurl/go.sum
	cd $(<D) && go build -o $(CURDIR)/bin/ github.com/fullstorydev/grpcurl/cmd/grpcurl
	@touch $@

$(BUF): tools/buf/node_modules/.package-lock.json

# npm writes this file last, so it says that the folder is whole.
%/node_modules/.package-lock.json: %/package-lock.json
	@command -v npm >/dev/null || { echo 'npm is missing: install node 20 or newer (Debian: apt-get install nodejs npm)' >&2; exit 1; }
	cd $* && npm ci --ignore-scripts --no-audit --no-fund
	@touch $@

# What comes from Debian: the browser that tests of the consent pages drive, and what the examples in Python import. Root gets what is
# missing, in one go; everybody else is told, and the tests that need it fail.
.PHONY: need-debian
need-debian:
	@missing=(); \
	command -v chromium chromium-browser google-chrome >/dev/null || missing+=(chromium); \
	$(PYTHON) -c 'import grpc, google.protobuf' 2>/dev/null || missing+=(python3-grpcio python3-protobuf); \
	[ $${#missing[@]} = 0 ] || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq \
		&& DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$${missing[@]}"; } \
		|| echo "missing, so that tests will fail: $${missing[*]} (Debian: apt-get install $${missing[*]})" >&2

.PHONY: need-cc
need-cc:
	@command -v $$(go env CC) >/dev/null || { echo 'the race detector needs a C compiler (Debian: apt-get install gcc libc6-dev)' >&2; exit 1; }
