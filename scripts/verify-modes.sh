#!/usr/bin/env bash
# Verifies on real processes what eventual namespaces and the switch between the modes promise, with figures:
#
#   scripts/verify-modes.sh [--only CASE]... [--quick] [--seed N] [-o json] [sizes]
#
# --only    one case; may be given more than once. `rdb-nemesis modes --help` names them, and the sizes of each
# --quick   small sizes, to see that all works. The bars are for the full ones, on an otherwise idle machine with two processors
# --seed    what faults and clients draw from. A case that fails prints the command that does it again
# -o json   one JSON object a case, instead of lines
#
# FLAREDB_BIN_DIR names a folder with the rdb-server, rdb and rdb-nemesis to use; without it they are built. The last line is
# `N passed, N failed`; the status is 0 if none failed. What goes on is told on stderr.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$ROOT"
export HOME=${HOME:-~}

# shellcheck source=scripts/lib/verify.sh
source scripts/lib/verify.sh

main() {
  cluster_programs
  nemesis_program
  # The nemesis starts the nodes of each case, and ends them, also when it is interrupted.
  exec "$NEMESIS" modes --server "$SERVER" "$@"
}

main "$@"
