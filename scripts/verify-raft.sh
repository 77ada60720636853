#!/usr/bin/env bash
# Verifies on real processes what Raft promises, and measures how fast it recovers:
#
#   scripts/verify-raft.sh [--kills N] [--cuts N] [--retries N] [--only CASE]
#
# --kills N    leaders killed under load (default 5)
# --cuts N     power cuts of all nodes under load (default 3; needs root, loop devices and a C compiler)
# --retries N  compare-and-swaps that are sent again and again while nodes die (default 3000)
# --only       one case: single, three, minority, kills, cuts, rejoin or retries
#
# FLAREDB_BIN_DIR names a folder with the rdb-server and rdb to use; without it they are built. The bars are for an
# otherwise idle machine with two processors. The last line is `N passed, N failed`; the status is 0 if none failed.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$ROOT"
export HOME=${HOME:-~}

# shellcheck source=scripts/lib/verify.sh
source scripts/lib/verify.sh

readonly CALLERS=64
readonly P99_ALONE_US_MAX=50000
readonly P99_THREE_US_MAX=100000
readonly RESUME_MEDIAN_MS_MAX=2000
readonly RESUME_MS_MAX=5000
readonly REJOIN_MS_MAX=5000
readonly MISSED_WRITES=100000
# A round of a kill, or of a power cut, takes no longer than this on a machine that can be measured on at all.
readonly KILL_SECONDS=7
readonly CUT_SECONDS=12

# Measures at 64 callers, half of it reads, and holds p99 of both against a bar.
measure_p99() {
  local bar=$1 reads writes
  start_bench --callers "$CALLERS" --keys 20000 --duration 10s
  end_bench || return 1
  writes=$(report_number "$CASE/bench.json" writes p99_us)
  reads=$(report_number "$CASE/bench.json" reads p99_us)
  measured "p99 of writes $(milliseconds "$writes") and of reads $(milliseconds "$reads")" \
    "at $(report_number "$CASE/bench.json" "" operations_per_second | cut -d. -f1) op/s (bar $(milliseconds "$bar"))"
  ((writes < bar && reads < bar)) || wrong "p99 is over its bar"
}

# --- cases

case_single() {
  begin_case one && create_namespace || return 1
  measure_p99 "$P99_ALONE_US_MAX" || return 1
  # What was acknowledged is there after a crash.
  "$RDB" put bench kept value >/dev/null || return 1
  crash_node "$CASE" 1
  start_node "$CASE" 1
  wait_for_node "$CASE" "$CASE_BASE" 1 || return 1
  within "$ANSWER_SECONDS_MAX" has_value bench kept value
}

case_three() {
  begin_case && create_namespace || return 1
  measure_p99 "$P99_THREE_US_MAX"
}

# What a lone node of three says: 0 to what it must not.
case_minority() {
  begin_case && create_namespace || return 1
  within "$ANSWER_SECONDS_MAX" "$RDB" put bench key before || return 1
  local leader node alone status
  leader=$(leader_node) || return 1
  alone=$(client_address "$CASE_BASE" "$leader")
  for node in $(other_nodes "$leader"); do kill -STOP "$(node_pid "$CASE" "$node")"; done
  # Not done or in doubt; anything else is no honest answer.
  status=0
  "$RDB" --endpoints "$alone" --timeout 4s put bench key minority >"$CASE/put.err" 2>&1 || status=$?
  ((status == 3 || status == 4)) || wrong "a write to a minority ended with status $status: $(<"$CASE/put.err")" || return 1
  measured "a write is told $( ((status == 3)) && echo "not done" || echo "in doubt")"
  status=0
  "$RDB" --endpoints "$alone" --timeout 4s get bench key >"$CASE/get.err" 2>&1 || status=$?
  ((status >= 3)) || wrong "a read of a minority ended with status $status: $(<"$CASE/get.err")" || return 1
  measured "a read is refused"
  for node in $(other_nodes "$leader"); do kill -CONT "$(node_pid "$CASE" "$node")"; done
  within "$ANSWER_SECONDS_MAX" "$RDB" put bench key after || return 1
  within "$ANSWER_SECONDS_MAX" has_value bench key after
}

case_kills() {
  local kills=$1 round leader began times=() median most
  begin_case && create_namespace || return 1
  start_bench --callers 32 --keys 20000 --duration $((kills * KILL_SECONDS + 10))s
  # The data set is written first.
  sleep 5
  for ((round = 1; round <= kills; round++)); do
    bench_runs || wrong "the load ended before kill $round" || return 1
    leader=$(leader_node) || wrong "no leader before kill $round" || return 1
    began=$(now_ms)
    crash_node "$CASE" "$leader"
    # shellcheck disable=SC2046 # one word per node
    write_until_done "$(endpoints_of $(other_nodes "$leader"))" || wrong "no write within 30 s of kill $round" || return 1
    times+=($(($(now_ms) - began)))
    start_node "$CASE" "$leader"
    wait_for_node "$CASE" "$CASE_BASE" "$leader" || return 1
    wait_until_applied "$leader" || wrong "node $leader did not catch up after kill $round" || return 1
  done
  end_bench || return 1
  read -r median most < <(median_and_max "${times[@]}")
  measured "$kills kills, writes resumed after $(seconds "$median") (median) and $(seconds "$most") (longest)"
  ((median <= RESUME_MEDIAN_MS_MAX && most <= RESUME_MS_MAX)) ||
    wrong "the bars are $(seconds $RESUME_MEDIAN_MS_MAX) and $(seconds $RESUME_MS_MAX)"
}

# Waits until a node has applied what the leader has applied by now.
wait_until_applied() {
  local node=$1 leader target applied deadline=$((SECONDS + 60))
  leader=$(leader_node) || return 1
  target=$(region_metric "$leader" region_applied_index)
  while ((SECONDS < deadline)); do
    applied=$(region_metric "$node" region_applied_index)
    if [[ -n $target && -n $applied ]] && ((target <= applied)); then return; fi
    sleep 0.05
  done
  return 1
}

case_cuts() {
  local cuts=$1 round node began times=() median most
  CASE=$(mktemp -d "${TMPDIR:-/tmp}/flaredb-verify.XXXXXX")
  CASE_BASE=$(free_port_base)
  touch "$CASE/power-was-cut"
  export FLAREDB_ENDPOINTS
  FLAREDB_ENDPOINTS=$(cluster_endpoints "$CASE_BASE")
  make_powercut || return 1
  for node in "${NODES[@]}"; do make_disk "$node" || return 1; done
  start_nodes "$CASE" "$CASE_BASE" "${NODES[@]}" >/dev/null && create_namespace || return 1
  start_bench --callers 32 --keys 20000 --duration $((cuts * CUT_SECONDS + 10))s
  sleep 5
  for ((round = 1; round <= cuts; round++)); do
    bench_runs || wrong "the load ended before power cut $round" || return 1
    cut_all "$round" || return 1
    began=$(now_ms)
    for node in "${NODES[@]}"; do start_node "$CASE" "$node"; done
    for node in "${NODES[@]}"; do
      wait_for_node "$CASE" "$CASE_BASE" "$node" || wrong "node $node does not start after power cut $round" || return 1
    done
    write_until_done "$FLAREDB_ENDPOINTS" || wrong "no write within 30 s of power cut $round" || return 1
    times+=($(($(now_ms) - began)))
    # At another moment of the nodes' work each time.
    sleep "$((RANDOM % 3)).$((RANDOM % 10))"
  done
  end_bench || return 1
  read -r median most < <(median_and_max "${times[@]}")
  measured "$cuts power cuts, writes resumed $(seconds "$median") (median) and $(seconds "$most") (longest) after the start"
}

# Cuts the power of all nodes. They are stopped first, in the middle of what they do: ext4 that was shut down may tell a
# process that still runs that a sync has succeeded though it has not, and a node without power tells nobody anything.
cut_all() {
  local round=$1 node pid
  for pid in $(all_pids); do kill -STOP "$pid"; done
  for node in "${NODES[@]}"; do
    cut_power "$CASE/disk-$node" || wrong "the power of node $node could not be cut" || return 1
  done
  # One that could not write any more has ended by itself.
  for node in "${NODES[@]}"; do crash_node "$CASE" "$node" 2>/dev/null || true; done
  for node in "${NODES[@]}"; do
    unmount "$CASE/disk-$node" && mount_disk "$node" || wrong "the disk of node $node does not come back" || return 1
  done
}

case_rejoin() {
  local leader away missed=0 began took
  begin_case && create_namespace || return 1
  start_bench --callers "$CALLERS" --keys 20000 --value-size 256 --duration 1s
  end_bench || return 1
  MEASURED=""
  leader=$(leader_node) || return 1
  away=$(other_nodes "$leader" | sed -n 1p)
  crash_node "$CASE" "$away"
  while ((missed < MISSED_WRITES)); do
    start_bench --callers 256 --keys 20000 --value-size 256 --read-share 0 --duration 5s
    end_bench || return 1
    missed=$((missed + $(report_number "$CASE/bench.json" writes count)))
  done
  MEASURED=""
  began=$(now_ms)
  start_node "$CASE" "$away"
  wait_until_applied "$away" || wrong "it did not catch up within a minute" || return 1
  took=$(($(now_ms) - began))
  measured "$missed writes of 256 bytes missed, caught up $(seconds "$took") after its start (bar $(seconds $REJOIN_MS_MAX))"
  ((took <= REJOIN_MS_MAX)) || wrong "too slow"
}

# A test of its own, which builds and starts nodes of its own: this only says how often, and what it measured.
case_retries() {
  local retries=$1 log status=0
  log=$(mktemp "${TMPDIR:-/tmp}/flaredb-verify.XXXXXX")
  FLAREDB_RETRIES=$retries cargo test --release --locked -p rdb-server --test nodes -- \
    --exact --nocapture test_retries::a_retried_compare_and_swap_is_applied_once >"$log" 2>&1 || status=1
  if ((status == 0)); then
    measured "$(grep "applied once each" "$log")"
  else
    tail -n 60 "$log" >&2
    wrong "the test failed"
  fi || status=1
  rm -f "$log"
  return $status
}

main() {
  local kills=5 cuts=3 retries=3000 reason
  while (($# > 0)); do
    case "$1" in
      --kills) kills=${2:?--kills needs a number} ;;
      --cuts) cuts=${2:?--cuts needs a number} ;;
      --retries) retries=${2:?--retries needs a number} ;;
      --only) want_only "${2:?--only needs a case}" single three minority kills cuts rejoin retries ;;
      *) die "verify-raft.sh does not know '$1'" "scripts/verify-raft.sh [--kills N] [--cuts N] [--retries N] [--only CASE]" ;;
    esac
    shift 2
  done
  cluster_programs
  begin_cases
  if wants single; then run_case "one node" case_single; fi
  if wants three; then run_case "three nodes" case_three; fi
  if wants minority; then run_case "minority" case_minority; fi
  if wants kills; then run_case "leaders killed" case_kills "$kills"; fi
  if wants cuts; then
    reason=$(why_no_power_cuts)
    if [[ -z $reason ]]; then run_case "power cuts" case_cuts "$cuts"; else skip_case "power cuts" "$reason"; fi
  fi
  if wants rejoin; then run_case "rejoin" case_rejoin; fi
  if wants retries; then run_case "retries" case_retries "$retries"; fi
  finish
}

main "$@"
