# `make test` installs what the tests need and runs them all; it needs Rust, Python 3.11 and package registries.

# One set of flags for every step, so that DataFusion is built once.
FLAGS := --release --features failpoints
VENV  := $(or $(CLOUD_CONNECT_VENV),$(HOME)/.cache/cloud-connect/venv)
STAMP := $(VENV)/.installed-$(shell cksum < tests/requirements.txt | cut -d' ' -f1)

export CLOUD_CONNECT_TEST_PYTHON := $(VENV)/bin/python
export CLOUD_CONNECT_STANDINS := $(or $(CLOUD_CONNECT_STANDINS),$(HOME)/.cache/cloud-connect/standins)

.PHONY: test lint tools sample-data clean-test-tools

test: tools
	cargo test $(FLAGS) --lib --test cli --test warehouses

lint:
	cargo fmt --check
	cargo clippy $(FLAGS) --all-targets -- -D warnings

tools: postgresql openssl sqlite3 $(STAMP) standins

# makes the keys that tests log in with; copies catalogs
.PHONY: openssl sqlite3
openssl sqlite3:
	@command -v $@ >/dev/null || { \
	  SUDO=$$([ "$$(id -u)" = 0 ] || echo sudo); \
	  $$SUDO apt-get update -q && $$SUDO env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $@; }

# a real PostgreSQL server, which the tests start privately
.PHONY: postgresql
postgresql:
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || { \
	  SUDO=$$([ "$$(id -u)" = 0 ] || echo sudo); \
	  $$SUDO apt-get update -q && \
	  $$SUDO mkdir -p /etc/postgresql-common && \
	  echo 'create_main_cluster = false' | $$SUDO tee /etc/postgresql-common/createcluster.conf >/dev/null && \
	  $$SUDO env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends postgresql; }

# other readers of Delta tables, and an S3 server
$(STAMP): tests/requirements.txt
	python3 -m venv $(VENV)
	$(VENV)/bin/pip install -q -r tests/requirements.txt
	touch $@

# servers that speak a warehouse's protocol
.PHONY: standins
standins:
	@tests/standins/install.sh "$(CLOUD_CONNECT_STANDINS)"

# the e-bike shop's data, the same bytes for the same seed
sample-data:
	cargo run $(FLAGS) --example generate_ebikes -- --out examples/ebikes

clean-test-tools:
	rm -rf $(VENV) $(CLOUD_CONNECT_STANDINS)
