# shellcheck shell=bash
# ./x bench: FlareDB against a three-node etcd on the same machine, in turn, with the same load.
#
#   ./x bench [--seconds N] [--rounds N] [--callers N] [--value-size N]
#
# Both clusters keep their data on the same disk and run all the time; only one is measured at a time, each by clients that
# ask its leader at once: FlareDB's library does so by itself, and etcd answers half as much again that way. Each round
# measures puts and linearizable gets of one and then of the other, so that what else the machine does meets both. What is
# compared are the medians of the rounds. Without etcd, FlareDB is measured alone.

BENCH_SECONDS=60
BENCH_WARMUP_SECONDS=10
BENCH_ROUNDS=2
BENCH_CALLERS=64
BENCH_VALUE_SIZE=256
readonly ETCD_READY_SECONDS_MAX=30

run_bench() {
  bench_options "$@"
  cluster_programs
  start_temporary_cluster
  local targets=(flaredb) round target
  if command -v etcd >/dev/null; then
    start_etcd
    targets+=(etcd)
  else
    say "etcd is not installed (Debian and Ubuntu: apt-get install etcd-server); FlareDB is measured alone"
  fi
  say "$BENCH_ROUNDS rounds of $BENCH_SECONDS s after $BENCH_WARMUP_SECONDS s, $BENCH_CALLERS callers, $BENCH_VALUE_SIZE-byte values"
  for ((round = 1; round <= BENCH_ROUNDS; round++)); do
    for target in "${targets[@]}"; do
      bench_one "$target" put 0 "$round"
      bench_one "$target" get 1 "$round"
    done
  done
  if ((${#targets[@]} == 2)); then bench_compare; fi
  stop_nodes "$TEMPORARY"
}

bench_options() {
  while (($# > 0)); do
    (($# > 1)) || usage_error "bench: $1 wants a number"
    [[ $2 =~ ^[1-9][0-9]*$ ]] || usage_error "bench: $1 wants a number from 1, not '$2'"
    case "$1" in
      --seconds) BENCH_SECONDS=$2 ;;
      --rounds) BENCH_ROUNDS=$2 ;;
      --callers) BENCH_CALLERS=$2 ;;
      --value-size) BENCH_VALUE_SIZE=$2 ;;
      *) usage_error "bench does not know '$1'" ;;
    esac
    shift 2
  done
}

# --- etcd

etcd_client_address() { echo "127.0.0.1:$((TEMPORARY_BASE + 300 + $1))"; }
etcd_peer_address() { echo "127.0.0.1:$((TEMPORARY_BASE + 400 + $1))"; }

# Three etcd processes with their defaults, which sync every write; they end with this script.
start_etcd() {
  local node cluster="" deadline=$((SECONDS + ETCD_READY_SECONDS_MAX))
  for node in "${NODES[@]}"; do cluster+="${cluster:+,}e$node=http://$(etcd_peer_address "$node")"; done
  ETCD_PIDS=()
  trap 'kill -9 "${ETCD_PIDS[@]}" 2>/dev/null; remove_temporary_cluster' EXIT
  for node in "${NODES[@]}"; do
    etcd --name "e$node" --data-dir "$TEMPORARY/etcd-$node" --log-level error \
      --listen-client-urls "http://$(etcd_client_address "$node")" \
      --advertise-client-urls "http://$(etcd_client_address "$node")" \
      --listen-peer-urls "http://$(etcd_peer_address "$node")" \
      --initial-advertise-peer-urls "http://$(etcd_peer_address "$node")" \
      --initial-cluster "$cluster" --initial-cluster-state new --quota-backend-bytes 8589934592 \
      >"$TEMPORARY/etcd-$node.log" 2>&1 </dev/null &
    ETCD_PIDS+=($!)
    # So that bash does not announce how they end.
    disown $!
  done
  until [[ $(http_status "$(etcd_client_address 1)" /health) == 200 ]]; do
    ((SECONDS < deadline)) || die "etcd is not ready after $ETCD_READY_SECONDS_MAX s; see $TEMPORARY/etcd-1.log"
    sleep 0.2
  done
  until http_page "$(etcd_client_address 1)" /metrics | grep -q '^etcd_server_has_leader 1'; do
    ((SECONDS < deadline)) || die "etcd has no leader after $ETCD_READY_SECONDS_MAX s; see $TEMPORARY/etcd-1.log"
    sleep 0.2
  done
  say_step etcd "ready (its leader is $(etcd_leader))"
}

# Where clients reach etcd's leader, as its members see it.
etcd_leader() {
  local node
  for node in "${NODES[@]}"; do
    if http_page "$(etcd_client_address "$node")" /metrics | grep -q '^etcd_server_is_leader 1'; then
      etcd_client_address "$node"
      return
    fi
  done
  die "no member of the etcd cluster leads it; see $TEMPORARY/etcd-1.log"
}

# --- measuring

# One measurement; its report goes to a file, one line of it to the screen.
bench_one() {
  local target=$1 operation=$2 read_share=$3 round=$4 report endpoints=$FLAREDB_ENDPOINTS pids
  report=$TEMPORARY/bench-$target-$operation-$round.json
  if [[ $target == etcd ]]; then
    endpoints=$(etcd_leader)
    pids=$(join_commas "${ETCD_PIDS[@]}")
  else
    pids=$(join_commas "$(<"$TEMPORARY/node-1.pid")" "$(<"$TEMPORARY/node-2.pid")" "$(<"$TEMPORARY/node-3.pid")")
  fi
  "$RDB" bench --target "$target" --endpoints "$endpoints" --server-pids "$pids" -o json \
    --callers "$BENCH_CALLERS" --value-size "$BENCH_VALUE_SIZE" --read-share "$read_share" \
    --duration "${BENCH_SECONDS}s" --warmup "${BENCH_WARMUP_SECONDS}s" >"$report" ||
    die "the measurement of $target failed; its report is ${report##*/}: $(tail -n 5 "$report")"
  printf '  round %d  %-8s %s  %8.0f/s  p50 %7.2f ms  p99 %7.2f ms  max %8.2f ms  %6.1f us of server CPU each\n' \
    "$round" "$target" "$operation" "$(field "$report" operations_per_second)" \
    "$(latency "$report" "$operation" p50)" "$(latency "$report" "$operation" p99)" \
    "$(latency "$report" "$operation" max)" "$(field "$report" server_us_per_operation)"
}

join_commas() {
  local IFS=,
  echo "$*"
}

# The first number of this name in a report.
field() {
  sed -n "s/^ *\"$2\": \([0-9.]*\),*\$/\1/p" "$1" | sed -n 1p
}

# A latency of the operation that was measured, in milliseconds.
latency() {
  local section=writes
  if [[ $2 == get ]]; then section=reads; fi
  sed -n "/\"$section\": {/,/}/s/^ *\"$3_us\": \([0-9]*\),*\$/\1/p" "$1" | awk '{ printf "%.3f", $1 / 1000 }'
}

bench_compare() {
  local operation
  echo
  for operation in put get; do
    printf '  %s: %s times the throughput of etcd at %s of its server CPU per operation\n' "$operation" \
      "$(ratio "$operation" operations_per_second)" "$(ratio "$operation" server_us_per_operation)"
  done
}

# FlareDB's median over etcd's.
ratio() {
  awk -v ours="$(median flaredb "$1" "$2")" -v theirs="$(median etcd "$1" "$2")" \
    'BEGIN { if (theirs > 0) printf "%.2f", ours / theirs; else printf "?" }'
}

median() {
  local report
  for report in "$TEMPORARY/bench-$1-$2"-*.json; do field "$report" "$3"; done |
    sort -n | awk '{ all[NR] = $1 } END { print (all[int((NR + 1) / 2)] + all[int(NR / 2) + 1]) / 2 }'
}
