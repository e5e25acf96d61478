# `make` alone lists the targets.

CARGO ?= cargo
PREFIX ?= $(HOME)/.cargo

SBIN ?= /sbin
SHARE ?= $(PREFIX)/share
VYKAR ?= $(PREFIX)/bin/vykar
SOAK_SECONDS ?= 600
SECONDS ?= 60
# Tests that cannot run name themselves there (tests/needs.rs).
LEFT_OUT = $(abspath target/left-out)

.PHONY: help needs fmt-check lint test soak torture fuzz-check fuzz pre-commit build install install-extras install-mount-helper demo bench bench-mount bench-mount-parts scale bench-stages

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 22

fmt-check: ## formatting, as rustfmt wants it
	$(CARGO) fmt --all --check

needs: ## what the tests need beyond the tool chain, and how to get what is missing
	@scripts/needs test

lint: ## clippy; a warning is an error
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

test: needs ## all tests, real mounts included, and how many were left out; VYKAR_NO_FUSE=1 leaves out what mounts
	@mkdir -p $(dir $(LEFT_OUT)) && : > $(LEFT_OUT)
	VYKAR_LEFT_OUT=$(LEFT_OUT) $(CARGO) test --workspace --locked; \
	    status=$$?; scripts/left-out $(LEFT_OUT); exit $$status

soak: needs ## ten minutes of readers and changing snapshots on a real mount; SOAK_SECONDS=n for another time
	VYKAR_SOAK_SECONDS=$(SOAK_SECONDS) $(CARGO) test --workspace --locked --test e2e -- --nocapture soak::

torture: needs ## crash tests at full size: more places, chances and kills (docs/reliability.md)
	VYKAR_TORTURE=1 $(CARGO) test --workspace --locked -- --nocapture torture

fuzz-check: ## replay the seeds of all fuzz targets; make test does that as well
	$(CARGO) test --locked --package vykar-cli --test e2e -- fuzz::

fuzz: ## fuzz a parser: TARGET=name SECONDS=n; docs/fuzzing.md has the names, and what it needs
	scripts/fuzz "$(TARGET)" "$(SECONDS)"

pre-commit: needs fmt-check lint test ## formatting, lints and all tests, as it must be for every change

build: ## an optimised binary in target/release/vykar
	@scripts/needs build
	$(CARGO) build --release --locked --package vykar-cli

install: ## the same, into PREFIX/bin (default ~/.cargo/bin), with completions and manual pages in PREFIX/share
	@scripts/needs build
	$(CARGO) install --locked --path vykar-cli --root $(PREFIX)
	ln -sf vykar $(PREFIX)/bin/mount.fuse.vykar
	ln -sf vykar $(PREFIX)/bin/mount.vykar
	@$(MAKE) --no-print-directory install-extras

install-extras: # completions and manual pages, below PREFIX/share
	mkdir -p $(SHARE)/bash-completion/completions $(SHARE)/zsh/site-functions $(SHARE)/fish/vendor_completions.d
	$(VYKAR) man $(SHARE)/man/man1
	$(VYKAR) completions bash > $(SHARE)/bash-completion/completions/vykar
	$(VYKAR) completions zsh > $(SHARE)/zsh/site-functions/_vykar
	$(VYKAR) completions fish > $(SHARE)/fish/vendor_completions.d/vykar.fish

install-mount-helper: ## as root, after make install PREFIX=/usr/local: lets mount(8) and fstab find it
	@[ "$$(stat -L -c %u $(PREFIX)/bin/vykar)" = 0 ] || { \
	    echo "root would run $(PREFIX)/bin/vykar, which must be root's: make install PREFIX=/usr/local" >&2; exit 1; }
	ln -sf $(abspath $(PREFIX))/bin/vykar $(SBIN)/mount.fuse.vykar
	ln -sf $(abspath $(PREFIX))/bin/vykar $(SBIN)/mount.vykar

demo: ## backup, mount, compare and restore in a temporary folder; SOURCE=folder to choose what
	scripts/demo $(SOURCE)

bench: ## time backup and restore beside other programs, as root on Debian, and write docs/benchmarks.md
	scripts/bench --write

bench-mount: ## time the mount beside other file systems, as root on Debian, and write docs/benchmarks.md
	scripts/bench-mount --write

scale: ## show how time and memory grow, to ten million chunks, as root on Debian, and write docs/benchmarks.md
	scripts/scale --write

bench-stages: ## time each stage of backup and restore alone; ONLY=name for those whose name contains it
	$(CARGO) bench --locked --package vykar-core --bench stages -- $(ONLY)

bench-mount-parts: ## time and memory of the mount's parts at large sizes, without FUSE; ONLY=name as above
	$(CARGO) bench --locked --package vykar-mount --bench measures -- $(ONLY)
