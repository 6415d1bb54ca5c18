# Each target first prepares the checkout (scripts/bootstrap), which takes no time once it is done.
#
#   LAB=auto         the fullest lab that this machine allows (default)
#   LAB=namespaces   each host is a network namespace with its own sshd; needs root
#   LAB=plain        each host is a folder, for machines that refuse namespaces or loop devices
#   N=20             how many runs `make consistency` makes
#   CELLS=all        which cells of the fault matrix `make test-faults` runs; tests/faults/matrix.py has the default
#   N=10,30,100      how many light servers `make bench-scale` measures; scripts/bench-scale lists more
#   SAMPLES=10       how many freeze windows of each kind `make bench-window` measures
#   SIZE=4G ROUNDS=3 image size and rounds of `make bench`; scripts/bench lists more

LAB ?= auto
N ?= 20
export LAB N

.DEFAULT_GOAL := help
.PHONY: help isb idr test test-faults test-idr test-site test-vm test-all check lint unit sanity slow plain molecule molecule-mbf integration lab-up lab-down consistency production-view bench bench-window bench-scale bench-instant isb-saveset lock clean ready

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  Variables: LAB=auto|namespaces|plain (default auto), N=20 (runs of make consistency)"
	@echo "  CELLS=all (make test-faults), SAMPLES=10 (make bench-window)"
	@echo "  N=10,30,100 ROUNDS=1 REV=commit FAIL=1 (make bench-scale)"
	@echo "  SIZE=4G ROUNDS=3 (make bench; SIZE=1G ROUNDS=1 for a quick one)"

isb: ready ## start the lab, back up all servers at one consistency point, verify, restore and check
	@scripts/isb

idr: ready ## a drill in the lab: bring the backups up on the DR host, check them, report, and take them down
	@scripts/idr

lab-up: ready ## start the lab, or bring it back to its defined state
	@scripts/lab up

lab-down: ready ## stop the lab and remove everything that it created on this machine
	@scripts/lab down

test: ready ## what must always pass: lint, unit, sanity, and a run in the lab
	@scripts/test

test-all: ready ## `make test`, then every long suite: about 100 minutes
	@scripts/test code molecule integration plain slow molecule-mbf faults idr site vm

check: ready ## the quick tests: lint and unit
	@scripts/test lint unit

lint: ready ## ruff, mypy, yamllint, ansible-lint, shellcheck, ansible-config, changelog
	@scripts/test lint

unit: ready ## unit tests
	@scripts/test unit

sanity: ready ## ansible-test sanity
	@scripts/test sanity

slow: ready ## tests marked slow, mainly those of the lab itself
	@scripts/test slow

molecule: ready ## the Molecule scenario `default`: lab, run, second run, verification, no leftovers
	@scripts/test molecule

molecule-mbf: ready ## the Molecule scenario `mbf`: rings quiesced through MEDITECH's MBF, and each of its failures
	@scripts/test molecule-mbf

integration: ready ## tests that drive whole runs in the lab
	@scripts/test integration

plain: ready ## `make isb` in the plain profile, for machines that refuse namespaces or loop devices
	@scripts/test plain

test-faults: ready ## inject faults into runs in the lab, and prove that no server stays frozen
	@scripts/test faults

test-idr: ready ## drills in the lab that pass, are kept, killed or refused, or find damage; none leaves anything behind
	@scripts/test idr

test-site: ready ## a first site, set up from the README alone; the built collection on oldest and newest ansible-core
	@scripts/test site

test-vm: ready ## volume groups and the kernel's own NBD client, in a virtual machine that has both
	@scripts/test vm

consistency: ready ## N runs under load: prove that restored copies show one point in time; measure freeze windows
	@scripts/consistency $(N)

production-view: ready ## measure what the servers' transactions notice of a run: longest stall, and throughput
	@scripts/production-view

bench-window: ready ## measure how long 3 and 30 servers are frozen, and where the time goes
	@scripts/bench-window

bench-scale: N = 10,30,100
bench-scale: ready ## measure whole runs of 10, 30 and 100 light servers: seconds, processor time, memory
	@scripts/bench-scale

bench-instant: ready ## compare reading a saveset directly as a disk with a plain restore
	@scripts/bench-instant

bench: ready ## compare the saveset engine with other backup engines, on this machine
	@scripts/bench

isb-saveset: ready ## build/isb-saveset.pyz: list, verify, restore and serve savesets without Ansible
	@mkdir -p build && cd plugins/module_utils && $(CURDIR)/.venv/bin/python -m saveset.program.tool $(CURDIR)/build/isb-saveset.pyz

lock: ready ## resolve the Python dependencies again (needs a package index)
	@scripts/lock

clean: ## remove what was built; the lab must be down
	@scripts/clean

ready:
	@scripts/bootstrap
