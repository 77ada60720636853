# shellcheck shell=bash
# What the verify scripts share: counting, clusters of one case, measuring from outside, disks that lose their power.
#
# A case is a function that returns 0 where all was as it should be. It says what it measured with `measured`, and why it
# failed with `wrong`. Cases run one after the other, each on nodes of its own, in a folder that goes with it.

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

PASSED=0
FAILED=0
MEASURED=""
# The folder of the case that runs, and its first port.
CASE=""
CASE_BASE=0

# --- beginning

# The only case to run; none: all.
ONLY=""

# cluster.sh calls it where there are no programs yet.
setup() {
  setup_tools
  setup_rocksdb
}

# Sets NEMESIS, which lies beside the other programs and is built where they are.
nemesis_program() {
  if [[ -z ${FLAREDB_BIN_DIR:-} ]]; then cargo build --release --locked -p rdb-nemesis; fi
  NEMESIS=${SERVER%/*}/rdb-nemesis
  [[ -x $NEMESIS ]] || die "there is no $NEMESIS"
}

# Names the only case to run, which must be among the others.
want_only() {
  local name=$1 known
  shift
  for known in "$@"; do
    if [[ $known == "$name" ]]; then
      ONLY=$name
      return
    fi
  done
  die "there is no case '$name'" "the cases are: $*"
}

wants() { [[ -z $ONLY || $ONLY == "$1" ]]; }

# Sees to it that no case's nodes outlive this script.
begin_cases() {
  trap end_case EXIT
  trap 'exit 130' INT TERM HUP
}

# --- counting

# Runs a case and counts it.
run_case() {
  local name=$1 started=$SECONDS status=0
  shift
  MEASURED=""
  "$@" || status=1
  search_logs || status=1
  if ((status == 0)); then
    PASSED=$((PASSED + 1))
    say_step "$name" "ok${MEASURED:+: $MEASURED} ($(clock $((SECONDS - started))))"
  else
    FAILED=$((FAILED + 1))
    say_step "$name" "FAILED${MEASURED:+: $MEASURED} ($(clock $((SECONDS - started))))"
    keep_case
  fi
  end_case
}

# A case that cannot run here is not counted.
skip_case() {
  say_step "$1" "skipped: $2"
}

measured() {
  MEASURED+="${MEASURED:+, }$*"
}

wrong() {
  say_error "$*"
  return 1
}

finish() {
  printf '%d passed, %d failed\n' "$PASSED" "$FAILED"
  ((FAILED == 0))
}

# --- a case's nodes

# Starts three nodes, or with "one" a single one. Sets CASE, CASE_BASE and FLAREDB_ENDPOINTS.
begin_case() {
  local size=${1:-three}
  CASE=$(mktemp -d "${TMPDIR:-/tmp}/flaredb-verify.XXXXXX")
  CASE_BASE=$(free_port_base)
  export FLAREDB_ENDPOINTS
  if [[ $size == one ]]; then
    FLAREDB_ENDPOINTS=$(client_address "$CASE_BASE" 1)
    write_lone_config
    start_node "$CASE" 1
    wait_for_node "$CASE" "$CASE_BASE" 1
    return
  fi
  FLAREDB_ENDPOINTS=$(cluster_endpoints "$CASE_BASE")
  start_nodes "$CASE" "$CASE_BASE" "${NODES[@]}" >/dev/null
}

create_namespace() {
  within "$ANSWER_SECONDS_MAX" has_namespace bench
}

# Node 1's configuration without the others: what follows its own [[nodes]].
write_lone_config() {
  write_node_config "$CASE" "$CASE_BASE" 1
  awk '/^\[\[nodes\]\]/ { members++ } members < 2' "$CASE/node-1.toml" >"$CASE/node-1.toml.new"
  mv "$CASE/node-1.toml.new" "$CASE/node-1.toml"
}

end_case() {
  local node
  [[ -n $CASE ]] || return 0
  kill_job
  for node in "${NODES[@]}"; do
    crash_node "$CASE" "$node" || true
    if mountpoint -q "$CASE/disk-$node" 2>/dev/null; then unmount "$CASE/disk-$node" || true; fi
  done
  rm -rf "$CASE"
  CASE=""
}

# What a failed case leaves to look at.
keep_case() {
  local kept node
  [[ -n $CASE ]] || return 0
  kept=$(mktemp -d "${TMPDIR:-/tmp}/flaredb-failed.XXXXXX")
  cp "$CASE"/*.log "$CASE"/*.toml "$CASE"/*.json "$CASE"/*.err "$kept" 2>/dev/null || true
  for node in "${NODES[@]}"; do say_log_end "$CASE/node-$node.log" 15; done
  say "the case's logs: $kept"
}

# No node may have panicked, or stopped because it could not keep a promise.
search_logs() {
  local found
  [[ -n $CASE ]] || return 0
  # A disk without power cannot be written: that a node says so and stops is right.
  found=$(grep -hE "panicked at|contradicts this node's log|it cannot keep its promises" "$CASE"/node-*.log |
    if [[ -e $CASE/power-was-cut ]]; then grep -vE "Input/output error|cannot keep its promises"; else cat; fi) || return 0
  wrong "a log has: $(head -n 1 <<<"$found")"
}

# The pids of all living nodes.
all_pids() {
  local node
  for node in "${NODES[@]}"; do node_pid "$CASE" "$node" || true; done
}

# --- looking from outside

# A metric of the only namespace's region, as one node has it; nothing where it does not answer.
region_metric() {
  local node=$1 name=$2
  # The catalog's region has a low number, and there is one other.
  http_page "$(http_address "$CASE_BASE" "$node")" /metrics |
    sed -n 's/^flaredb_'"$name"'{region="\([0-9]\{2,\}\)"} \([0-9]*\).*/\2/p'
}

# The node that says that it leads the namespace.
leader_node() {
  local node attempt
  for ((attempt = 0; attempt < 300; attempt++)); do
    for node in "${NODES[@]}"; do
      if [[ $(region_metric "$node" region_leader) == 1 ]]; then
        echo "$node"
        return
      fi
    done
    sleep 0.1
  done
  return 1
}

other_nodes() {
  local node
  for node in "${NODES[@]}"; do
    if [[ $node != "$1" ]]; then echo "$node"; fi
  done
}

endpoints_of() {
  local node addresses=()
  for node in "$@"; do addresses+=("$(client_address "$CASE_BASE" "$node")"); done
  (IFS=,; echo "${addresses[*]}")
}

now_ms() { echo $(($(date +%s%N) / 1000000)); }

# Seconds with two decimals, from milliseconds.
seconds() { printf '%d.%02d s' $(($1 / 1000)) $(($1 % 1000 / 10)); }

# Milliseconds with two decimals, from microseconds.
milliseconds() { printf '%d.%02d ms' $(($1 / 1000)) $(($1 % 1000 / 10)); }

# --- the benchmark as a witness

# A number of the benchmark's report: of "reads", "writes", "check", or "" for the top.
report_number() {
  local file=$1 section=$2 field=$3
  awk -v section="$section" -v field="\"$field\":" '
    /^  "[a-z]+": \{/ { split($1, name, "\""); inside = name[2] }
    /^  \}/ { inside = "" }
    $1 == field && inside == section { gsub(/,/, "", $2); print $2; exit }' "$file"
}

BENCH_PID=""

# Starts the benchmark in the background. It notes every acknowledged write, outside the nodes, and at its end looks for
# each, as do its reads on the way.
start_bench() {
  "$RDB" -o json bench --warmup 1s --server-name none "$@" >"$CASE/bench.json" 2>"$CASE/bench.err" &
  BENCH_PID=$!
}

bench_runs() { [[ -n $BENCH_PID ]] && kill -0 "$BENCH_PID" 2>/dev/null; }

# Waits for the benchmark and takes its word on the data.
end_bench() {
  local status=0 writes
  wait "$BENCH_PID" || status=$?
  BENCH_PID=""
  writes=$(report_number "$CASE/bench.json" writes count)
  if ((status != 0)) || [[ $(report_number "$CASE/bench.json" check passed) != true ]] || ((${writes:-0} == 0)); then
    cat "$CASE/bench.err" "$CASE/bench.json" >&2
    wrong "the benchmark's check of the data failed (status $status, ${writes:-no} writes)"
    return 1
  fi
  measured "$writes writes acknowledged and found," \
    "$(report_number "$CASE/bench.json" writes in_doubt) in doubt"
}

kill_job() {
  if bench_runs; then
    kill "$BENCH_PID" 2>/dev/null || true
    wait "$BENCH_PID" 2>/dev/null || true
  fi
  BENCH_PID=""
}

# Writes until one is acknowledged by the given nodes. Fails after 30 s.
write_until_done() {
  local endpoints=$1 deadline=$((SECONDS + 30))
  until "$RDB" --endpoints "$endpoints" --timeout 2s put bench probe "$RANDOM" >/dev/null 2>&1; do
    ((SECONDS < deadline)) || return 1
  done
}

# The median and the largest of the numbers given.
median_and_max() {
  printf '%s\n' "$@" | sort -n | awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)], all[NR] }'
}

# --- disks that lose their power

# Why disks cannot be cut off here; nothing where they can.
why_no_power_cuts() {
  if (($(id -u) != 0)); then
    echo "mounting needs root"
  elif ! command -v mkfs.ext4 >/dev/null || ! command -v mountpoint >/dev/null; then
    echo "mkfs.ext4 or mountpoint is missing"
  elif ! command -v cc >/dev/null; then
    echo "there is no C compiler"
  else
    try_power_cut || echo "this system mounts no ext4 file from a loop device, or cannot shut one down"
  fi
}

try_power_cut() {
  local status=0
  CASE=$(mktemp -d "${TMPDIR:-/tmp}/flaredb-verify.XXXXXX")
  { make_powercut && make_disk 1 && cut_power "$CASE/disk-1" && unmount "$CASE/disk-1" && mount_disk 1; } \
    >/dev/null 2>&1 || status=1
  end_case
  return $status
}

make_powercut() {
  POWERCUT=$CASE/powercut
  cc -o "$POWERCUT" "$ROOT/scripts/tools/powercut.c"
}

# A disk of its own for a node, with the node's folder on it.
make_disk() {
  local node=$1 image=$CASE/disk-$1.img
  truncate -s 3G "$image"
  mkfs.ext4 -q -F "$image"
  mkdir -p "$CASE/disk-$node"
  mount_disk "$node"
  mkdir -m 700 "$CASE/disk-$node/data"
  ln -s "disk-$node/data" "$CASE/node-$node"
  sync -f "$CASE/disk-$node/data"
}

mount_disk() {
  mount -o loop "$CASE/disk-$1.img" "$CASE/disk-$1"
}

cut_power() {
  "$POWERCUT" "$1"
}

# The last process that used it may take a moment to go.
unmount() {
  local attempt
  for ((attempt = 0; attempt < 100; attempt++)); do
    if umount "$1" 2>/dev/null; then return; fi
    sleep 0.1
  done
  umount "$1"
}
