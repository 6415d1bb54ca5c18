# Each target makes the checkout ready first (scripts/bootstrap), which takes no time once it is.
#
#   LAB=auto         the fullest lab that this machine allows (default)
#   LAB=namespaces   each host a network namespace with its own sshd; needs root
#   LAB=plain        each host a folder, for machines that refuse namespaces or loop devices
#   N=20             how many runs `make consistency` takes
#   CELLS=all        which cells of the fault matrix `make test-faults` runs; tests/faults/matrix.py has the default
#   SAMPLES=10       how many freeze windows of each kind `make bench-window` measures
#   SIZE=4G ROUNDS=3 the image and the rounds of `make bench`; scripts/bench names the rest

LAB ?= auto
N ?= 20
export LAB N

.DEFAULT_GOAL := help
.PHONY: help isb idr test test-faults test-idr test-vm test-all check lint unit sanity slow molecule molecule-mbf integration lab-up lab-down consistency production-view bench bench-window bench-instant isb-saveset lock clean ready

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  Variables: LAB=auto|namespaces|plain (default auto), N=20 (runs of make consistency)"
	@echo "  CELLS=all (make test-faults), SAMPLES=10 (make bench-window)"
	@echo "  SIZE=4G ROUNDS=3 (make bench; SIZE=1G ROUNDS=1 is the quick form)"

isb: ready ## start the lab, back up all servers at one consistency point, verify, restore and check
	@scripts/isb

idr: ready ## in the lab, bring what was backed up into use on the DR host, check it, report, and take it down
	@scripts/idr

lab-up: ready ## start the lab, or bring it back to its defined state
	@scripts/lab up

lab-down: ready ## stop the lab and remove all that it made on this machine
	@scripts/lab down

test: ready ## everything that must pass: lint, unit, sanity, and the lab in both profiles
	@scripts/test

test-all: ready ## `make test`, then every long suite: about 75 minutes
	@scripts/test lint unit sanity molecule integration plain slow molecule-mbf faults idr vm

check: ready ## the quick part of the tests: lint and unit
	@scripts/test lint unit

lint: ready ## ruff, mypy, yamllint, ansible-lint, shellcheck, ansible-config, changelog
	@scripts/test lint

unit: ready ## unit tests
	@scripts/test unit

sanity: ready ## ansible-test sanity
	@scripts/test sanity

slow: ready ## tests marked slow, above all those of the lab itself
	@scripts/test slow

molecule: ready ## the Molecule scenario `default`: lab, run, second run, verification, nothing left
	@scripts/test molecule

molecule-mbf: ready ## the Molecule scenario `mbf`: rings quiesced through MEDITECH's MBF, and every way in which it may fail
	@scripts/test molecule-mbf

integration: ready ## tests that drive whole runs in the lab
	@scripts/test integration

test-faults: ready ## hurt whole runs in the lab, and prove that no server stays frozen
	@scripts/test faults

test-idr: ready ## drills in the lab: that pass, are kept, killed, refused, or have damage to find; nothing is left of any
	@scripts/test idr

test-vm: ready ## volume groups and the kernel's own NBD client, in a virtual machine that has both
	@scripts/test vm

consistency: ready ## N runs under load: every restored copy one point in time, and how long servers were frozen
	@scripts/consistency $(N)

production-view: ready ## what the servers' own transactions notice of a run: the longest stall, and the throughput
	@scripts/production-view

bench-window: ready ## measure how long 3 and 30 servers are frozen, and where that time goes
	@scripts/bench-window

bench-instant: ready ## measure a saveset that is read as a disk, nothing restored first, beside plain restoring
	@scripts/bench-instant

bench: ready ## measure the saveset engine beside other backup engines, on this machine
	@scripts/bench

isb-saveset: ready ## build/isb-saveset.pyz: list, verify, restore and serve savesets without Ansible
	@mkdir -p build && cd plugins/module_utils && $(CURDIR)/.venv/bin/python -m saveset.tool $(CURDIR)/build/isb-saveset.pyz

lock: ready ## resolve the Python dependencies anew (needs a package index)
	@scripts/lock

clean: ## remove what was built; the lab must be down
	@scripts/clean

ready:
	@scripts/bootstrap
