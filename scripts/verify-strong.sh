#!/usr/bin/env bash
# Verifies on real processes what strong namespaces promise beyond Raft itself, with figures:
#
#   scripts/verify-strong.sh [--gigabytes N] [--only CASE]
#
# --gigabytes N  data that a node has missed when it comes back under load (default 2)
# --only         one case: behind
#
# FLAREDB_BIN_DIR names a folder with the rdb-server and rdb to use; without it they are built. The bars are for an
# otherwise idle machine with two processors. The last line is `N passed, N failed`; the status is 0 if none failed.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$ROOT"
export HOME=${HOME:-~}

# shellcheck source=scripts/lib/say.sh
source scripts/lib/say.sh
# shellcheck source=scripts/lib/tools.sh
source scripts/lib/tools.sh
# shellcheck source=scripts/lib/rocksdb.sh
source scripts/lib/rocksdb.sh
# shellcheck source=scripts/lib/cluster.sh
source scripts/lib/cluster.sh
# shellcheck source=scripts/lib/demo.sh
source scripts/lib/demo.sh
# shellcheck source=scripts/lib/verify.sh
source scripts/lib/verify.sh

readonly CALLERS=64
# What the node misses is made of records of this size.
readonly RECORD_BYTES=1024
# The load is measured in windows: none of them may hide behind the others.
readonly WINDOW_SECONDS=10
readonly WINDOWS_BEFORE=3
readonly WINDOWS_MAX=60

# cluster.sh calls it where there are no programs yet.
setup() {
  setup_tools
  setup_rocksdb
}

# One window of the load, in a subshell. Prints p99 of its writes and of its reads in microseconds, and its operations a second.
window() {
  start_bench --callers "$CALLERS" --keys 20000 --value-size 256 --duration "${WINDOW_SECONDS}s"
  end_bench || return 1
  echo "$(report_number "$CASE/bench.json" writes p99_us) $(report_number "$CASE/bench.json" reads p99_us)" \
    "$(report_number "$CASE/bench.json" "" operations_per_second | cut -d. -f1)"
}

# The largest p99 of some windows: "writes reads", and the smallest rate.
worst() {
  awk '{ if (w < $1) w = $1; if (r < $2) r = $2; if (!o || $3 < o) o = $3 } END { print w, r, o }'
}

# A node misses more than any log keeps, and comes back while clients work.
case_behind() {
  local gigabytes=$1 leader away records began target before_w before_r before_o during_w during_r during_o windows=()
  begin_case three && within "$ANSWER_SECONDS_MAX" has_namespace bench || return 1
  leader=$(leader_node) || return 1
  away=$(other_nodes "$leader" | sed -n 1p)
  crash_node "$CASE" "$away"
  records=$((gigabytes * 1073741824 / RECORD_BYTES))
  say "node $away is away; writing $records records of $RECORD_BYTES bytes"
  "$RDB" bench --load --callers 16 --keys "$records" --key-size 24 --value-size "$RECORD_BYTES" >/dev/null || return 1
  # The load's own keys are written before it is measured.
  window >/dev/null || return 1
  read -r before_w before_r before_o < <(for ((i = 0; i < WINDOWS_BEFORE; i++)); do window; done | worst)
  measured "without the node: p99 of writes $(milliseconds "$before_w"), of reads $(milliseconds "$before_r"), $before_o op/s"
  began=$(now_ms)
  start_node "$CASE" "$away"
  target=$(region_metric "$leader" region_applied_index)
  while [[ ${#windows[@]} -lt $WINDOWS_MAX ]]; do
    windows+=("$(window)") || return 1
    if has_applied "$away" "$target"; then break; fi
    target=$(region_metric "$leader" region_applied_index)
  done
  has_applied "$away" "$target" || wrong "node $away did not catch up in $WINDOWS_MAX windows" || return 1
  read -r during_w during_r during_o < <(printf '%s\n' "${windows[@]}" | worst)
  measured "while $gigabytes GiB came back in $(seconds $(($(now_ms) - began))): $(milliseconds "$during_w")," \
    "$(milliseconds "$during_r"), $during_o op/s (bar: twice the p99)"
  grep -q "a snapshot has replaced the region's data" "$CASE/node-$away.log" ||
    wrong "the node came back without a snapshot: nothing was measured" || return 1
  ((during_w <= 2 * before_w && during_r <= 2 * before_r)) || wrong "p99 has more than doubled"
}

has_applied() {
  local applied
  applied=$(region_metric "$1" region_applied_index)
  [[ -n $applied && -n $2 ]] && (($2 <= applied))
}

main() {
  local gigabytes=2 only=""
  while (($# > 0)); do
    case "$1" in
      --gigabytes) gigabytes=${2:?--gigabytes needs a number} ;;
      --only) only=${2:?--only needs a case} ;;
      *) die "verify-strong.sh does not know '$1'" "scripts/verify-strong.sh [--gigabytes N] [--only CASE]" ;;
    esac
    shift 2
  done
  cluster_programs
  trap end_case EXIT
  trap 'exit 130' INT TERM HUP
  wants() { [[ -z $only || $only == "$1" ]]; }
  if wants behind; then run_case "$gigabytes GiB behind" case_behind "$gigabytes"; fi
  finish
}

main "$@"
