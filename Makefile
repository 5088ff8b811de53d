# Locum's build. "make help" lists what there is. Only Go and git are needed; everything else comes through Go's modules.

SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

export GOTOOLCHAIN ?= local
export GOFLAGS     ?= -buildvcs=false

MODULE  := github.com/locum-ha/locum
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
DATE    ?= $(shell git log -1 --format=%cI 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION) -X main.buildDate=$(DATE)

# How long one package's tests may take; how long each fuzz target runs, and of which packages: the handlers for ten minutes are
# make fuzz FUZZPKG=./api FUZZTIME=10m
TIMEOUT  ?= 10m
FUZZTIME ?= 10s
FUZZPKG  ?= ./...

# The packages whose tests also run under the race detector in CI: those that goroutines meet in. The stores that are other
# servers' clients are left to "make race RACE=physical", and supervise to "make race RACE=supervise": their tests mostly wait for those
# servers, and for processes to start.
RACE ?= api|barrier|cache|cluster|election|forward|kv|lock|seal|internal|physical/(file|memory|raft|s3)

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 10

.PHONY: build
build: ## bin/locum, stripped and reproducible
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/locum ./cmd/locum
	@ls -l bin/locum | awk '{printf "bin/locum: %.1f MiB\n", $$5/1048576}'

.PHONY: man
man: ## the manual pages, in bin/man
	go run -ldflags '$(LDFLAGS)' ./cmd/locum man bin/man

.PHONY: docs
docs: ## docs/configuration.md, docs/stores.md and docs/metrics.md, from the code
	go generate ./internal/config ./internal/stores ./internal/metrics

.PHONY: deps
deps: ## installs what the tests need: modules, Consul, and Debian's packages where they may be installed
	@.ci/deps

.PHONY: test
test: deps ## vet and every test, of the main module, of test/ and of examples/
	@.ci/test $(TIMEOUT)

.PHONY: race
race: deps ## the tests of the packages in RACE under the race detector, the long ones cut short
	@.ci/race $(MODULE) '$(RACE)' $(TIMEOUT)

# The stores whose tests of faults "make faults" can run, by the names of their folders; "postgresql" is the configuration's.
STORE ?=
STORES := consul dynamodb etcd kubernetes mysql nats postgres redis s3 zookeeper
FAULTY := $(STORE:postgresql=postgres)

.PHONY: faults
faults: deps ## the long tests of faults of a data store: make faults STORE=etcd (or several: STORE="etcd consul")
	@if [ -z "$(STORE)" -o -n "$(filter-out $(STORES),$(FAULTY))" ]; then echo "error: which store? STORE is \"$(STORE)\""; echo "hint: make faults STORE=etcd; there are: $(STORES)"; exit 1; fi
	@case ' $(STORE) ' in *' nats '*) .ci/built nats;; esac
	LOCUM_FAULTS=1 LOCUM_NO_SKIP=1 go test -v -count=1 -p 1 -timeout 30m $(FAULTY:%=./physical/%/...) | .ci/quiet
	cd test && LOCUM_FAULTS=1 LOCUM_NO_SKIP=1 LOCUM_STORE="$(FAULTY)" go test -v -count=1 -timeout 30m ./stores | ../.ci/quiet

.PHONY: check
check: ## gofmt, vet, staticcheck, and the repo's own rules
	@out=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$out" ]; then echo "error: not gofmt-ed:"; echo "$$out"; echo "hint: gofmt -w"; exit 1; fi
	go vet ./...
	go tool -modfile=tools/go.mod staticcheck ./...
	for module in test examples; do (cd $$module && go vet ./... && go tool -modfile=../tools/go.mod staticcheck ./...); done
	go test -count=1 .

.PHONY: fuzz
fuzz: ## each fuzz target of FUZZPKG for FUZZTIME
	@for pkg in $$(go list $(FUZZPKG)); do \
		for target in $$(go test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
			echo "== $$pkg $$target"; \
			go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$pkg; \
		done; \
	done

.PHONY: bench
bench: ## the table of measurements that the README cites
	@if [ -d test/bench ]; then cd test && go run ./bench; else echo "error: test/bench does not exist in this tree"; exit 1; fi

.PHONY: clean
clean: ## removes what build made
	rm -rf bin
