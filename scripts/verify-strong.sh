#!/usr/bin/env bash
# Verifies on real processes what strong namespaces promise beyond Raft itself, with figures:
#
#   scripts/verify-strong.sh [--behind-mib N] [--namespaces N] [--only CASE]
#
# --behind-mib N  MiB of data that a node has missed when it comes back under load (default 2048)
# --namespaces N  namespaces that are made and left alone (default 1000)
# --only          one case: behind or idle
#
# FLAREDB_BIN_DIR names a folder with the rdb-server, rdb and rdb-nemesis to use; without it they are built. The bars are for
# an otherwise idle machine with two processors. The last line is `N passed, N failed`; the status is 0 if none failed.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$ROOT"
export HOME=${HOME:-~}

# shellcheck source=scripts/lib/verify.sh
source scripts/lib/verify.sh

readonly CALLERS=64
# What the node misses is made of records of this size.
readonly RECORD_BYTES=1024
# A node that misses so many times what its peers keep of the log for it is brought back by a snapshot. For 2 GiB, that is a
# log of the default length.
readonly LOGS_MISSED=8
# The load is measured in windows: none of them may hide behind the others.
readonly WINDOW_SECONDS=10
readonly WINDOWS=3
readonly WINDOWS_MAX=60
readonly IDLE_SECONDS=30
readonly IDLE_PERCENT_MAX=5
readonly IDLE_MIB_MAX=300
readonly IDLE_HALF_MS_MAX=5000

# One window of the load, in a subshell. Prints p99 of its writes and of its reads in microseconds, and its operations a second.
window() {
  start_bench --callers "$CALLERS" --keys 20000 --value-size 256 --duration "${WINDOW_SECONDS}s"
  end_bench || return 1
  echo "$(report_number "$CASE/bench.json" writes p99_us) $(report_number "$CASE/bench.json" reads p99_us)" \
    "$(report_number "$CASE/bench.json" "" operations_per_second | cut -d. -f1)"
}

# So many windows, one after the other.
windows() {
  local left=$1
  for ((; left > 0; left--)); do window || return 1; done
}

# The largest p99 of some windows: "writes reads", and the smallest rate.
worst() {
  awk '{ if (w < $1) w = $1; if (r < $2) r = $2; if (!o || $3 < o) o = $3 } END { print w, r, o }' <<<"$1"
}

# The worst of some windows in words.
told() {
  local writes reads rate
  read -r writes reads rate <<<"$1"
  echo "p99 of writes $(milliseconds "$writes"), of reads $(milliseconds "$reads"), $rate op/s"
}

# A node misses more than any log keeps, and comes back while clients work.
case_behind() {
  local mib=$1 leader away before during after began writes reads writes_before reads_before
  # shellcheck disable=SC2034 # write_node_config adds it
  local NODE_OPTIONS="log_bytes_max = $((mib * 1048576 / LOGS_MISSED))"
  begin_case three && create_namespace || return 1
  leader=$(leader_node) || return 1
  away=$(other_nodes "$leader" | sed -n 1p)
  crash_node "$CASE" "$away"
  say "node $away is away; writing $mib MiB in records of $RECORD_BYTES bytes"
  "$RDB" bench --load --callers 16 --keys $((mib * 1048576 / RECORD_BYTES)) --key-size 24 --value-size "$RECORD_BYTES" \
    >/dev/null || return 1
  # The load's own keys are written in a window that is not measured.
  before=$(window >/dev/null && windows "$WINDOWS") || return 1
  before=$(worst "$before")
  measured "without the node: $(told "$before")"
  began=$(now_ms)
  start_node "$CASE" "$away"
  during=$(windows_until_applied "$leader" "$away") || return 1
  during=$(worst "$during")
  measured "while $mib MiB came back, within $(seconds $(($(now_ms) - began))): $(told "$during") (bar: twice the p99)"
  grep -q "a snapshot has replaced the region's data" "$CASE/node-$away.log" ||
    wrong "the node came back without a snapshot: nothing was measured" || return 1
  after=$(windows "$WINDOWS") || return 1
  measured "afterwards: $(told "$(worst "$after")")"
  read -r writes_before reads_before _ <<<"$before"
  read -r writes reads _ <<<"$during"
  ((writes <= 2 * writes_before && reads <= 2 * reads_before)) || wrong "p99 has more than doubled"
}

# Windows until a node has applied all that the leader had applied when the last one began.
windows_until_applied() {
  local leader=$1 away=$2 target left
  for ((left = WINDOWS_MAX; left > 0; left--)); do
    target=$(region_metric "$leader" region_applied_index)
    window || return 1
    node_lives "$CASE" "$away" || wrong "node $away has died" || return 1
    if has_applied "$away" "$target"; then return; fi
  done
  wrong "node $away did not catch up in $WINDOWS_MAX windows"
}

has_applied() {
  local applied
  applied=$(region_metric "$1" region_applied_index)
  [[ -n $applied && -n $2 ]] && (($2 <= applied))
}

# Many namespaces that nobody uses, and the death of the node that leads the most of them. The nemesis measures.
case_idle() {
  local namespaces=$1 report=$2 lost
  "$NEMESIS" idle --namespaces "$namespaces" --seconds "$IDLE_SECONDS" --server "$SERVER" >"$report" ||
    wrong "the measurement failed" || return 1
  lost=$(idle_number lost)
  measured "$namespaces namespaces: at most $(idle_number processor_percent) % of a processor" \
    "($(idle_number processor_percent_before) % without them) and $(idle_number memory_growth_mib) MiB more per node"
  measured "after the death of the node that led $lost of them, all written to at once: $(idle_number served) served" \
    "a write, the first after $(seconds "$(idle_number first_ms)"), half of them after" \
    "$(seconds "$(idle_number half_ms)"), the last after $(seconds "$(idle_number last_ms)")"
  ((lost > 0)) || wrong "the node led none: nothing was measured" || return 1
  at_most "$(idle_number processor_percent)" "$IDLE_PERCENT_MAX" || wrong "idle namespaces cost too much time" || return 1
  at_most "$(idle_number memory_growth_mib)" "$IDLE_MIB_MAX" || wrong "idle namespaces cost too much memory" || return 1
  (($(idle_number served_of_all) == namespaces)) ||
    wrong "of $namespaces namespaces $(idle_number served_of_all) have served a write" || return 1
  at_most "$(idle_number half_ms)" "$IDLE_HALF_MS_MAX" || wrong "half of them took longer than $(seconds $IDLE_HALF_MS_MAX)"
}

# A number of the report that case_idle reads, at its top.
idle_number() { report_number "$report" "" "$1"; }

# Whether one number is no larger than another; neither need be whole.
at_most() { awk -v number="$1" -v most="$2" 'BEGIN { exit !(number != "" && number + 0 <= most + 0) }'; }

main() {
  local mib=2048 namespaces=1000 report
  while (($# > 0)); do
    case "$1" in
      --behind-mib) mib=${2:?--behind-mib needs a number} ;;
      --namespaces) namespaces=${2:?--namespaces needs a number} ;;
      --only) want_only "${2:?--only needs a case}" behind idle ;;
      *) die "verify-strong.sh does not know '$1'" "scripts/verify-strong.sh [--behind-mib N] [--namespaces N] [--only CASE]" ;;
    esac
    shift 2
  done
  cluster_programs
  if wants idle; then nemesis_program; fi
  begin_cases
  if wants behind; then run_case "$mib MiB behind" case_behind "$mib"; fi
  if wants idle; then
    report=$(mktemp "${TMPDIR:-/tmp}/flaredb-verify.XXXXXX")
    run_case "$namespaces idle" case_idle "$namespaces" "$report"
    rm -f "$report"
  fi
  finish
}

main "$@"
