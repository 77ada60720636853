# shellcheck shell=bash
# ./x demo and ./x demo --check: a three-node cluster to play with and to judge. At a terminal the demo ends in its prompt,
# rdb shell --demo, which can also kill, start and cut off the nodes.

readonly DEMO=$ROOT/demo-data
readonly DEMO_NAMESPACE=demo
readonly DEMO_KEYS=100
readonly CHECK_KEYS=20
# How long an answer may take while the cluster notices a dead node and elects another leader.
readonly ANSWER_SECONDS_MAX=30
# The status of a check that no later attempt can make up for.
readonly WRONG_VALUE=99

# --- ./x demo

demo_start() {
  local living base missing NODE_OPTIONS='fault_calls = true'
  living=$(living_nodes "$DEMO")
  if [[ -n $living ]]; then
    base=$(<"$DEMO/port-base")
    missing=$(comm -23 <(printf '%s\n' "${NODES[@]}") <(echo "$living"))
    if [[ -z $missing ]]; then
      say "the demo is running already"
    else
      demo_restart "$base" "$missing"
    fi
  else
    base=${FLAREDB_DEMO_PORT_BASE:-7100}
    demo_start_all "$base"
  fi
  if [[ -t 0 && -t 1 ]]; then
    demo_prompt "$base"
  else
    demo_say_next "$base"
  fi
}

# Ends this script in the demo's prompt, so that Ctrl-C there is the prompt's alone.
demo_prompt() {
  local base=$1
  if [[ -z ${RDB:-} ]]; then demo_find_programs; fi
  demo_say_nodes "$base"
  demo_say_prompt
  trap - INT TERM HUP
  exec "$RDB" shell --demo "$DEMO"
}

# The programs that the nodes were started with, if they are still there.
demo_find_programs() {
  local folder=${FLAREDB_BIN_DIR:-target/release}
  if [[ -x $folder/rdb && -x $folder/rdb-server ]]; then
    RDB=$folder/rdb
  else
    cluster_programs
  fi
}

demo_start_all() {
  local base=$1
  check_port_base "$base"
  die_if_busy "$base"
  cluster_programs
  mkdir -p "$DEMO"
  trap 'stop_nodes "$DEMO"; exit 130' INT TERM HUP
  echo "$base" >"$DEMO/port-base"
  if ! start_nodes "$DEMO" "$base" "${NODES[@]}" || ! demo_load "$base"; then
    stop_nodes "$DEMO" || true
    die "the demo did not start" "the logs: $DEMO/node-N.log" \
      "data of an older version may be in the way; to start with none: rm -r $DEMO"
  fi
}

# Some nodes died, most likely by the reader's own kill -9.
demo_restart() {
  local base=$1 missing=$2
  # shellcheck disable=SC2086 # one word per node
  say "not running: node" $missing
  cluster_programs
  # shellcheck disable=SC2086
  start_nodes "$DEMO" "$base" $missing || die "the other nodes still run" "to stop them: ./x demo --stop"
}

# Puts the demo's data where the demo's reader finds it. Putting the same twice is harmless.
demo_load() {
  local base=$1 i
  export FLAREDB_ENDPOINTS
  FLAREDB_ENDPOINTS=$(cluster_endpoints "$base")
  if [[ -f $DEMO/loaded ]]; then
    say_step "data" "kept from the last time"
    return
  fi
  within "$ANSWER_SECONDS_MAX" has_namespace "$DEMO_NAMESPACE" || return 1
  for ((i = 1; i <= DEMO_KEYS; i++)); do
    within "$ANSWER_SECONDS_MAX" "$RDB" put "$DEMO_NAMESPACE" "$(printf 'user/%03d' $i)" "{\"id\":$i,\"points\":$((i * 37 % 101))}" ||
      return 1
  done
  touch "$DEMO/loaded"
  say_step "data" "$DEMO_KEYS keys in the namespace '$DEMO_NAMESPACE'"
}

# Creates the namespace unless it is there; fails while neither can be told.
has_namespace() {
  local name=$1
  local names
  names=$("$RDB" ns list) || return 1
  grep -qw -- "$name" <<<"$names" || "$RDB" ns create "$name"
}

demo_say_nodes() {
  local base=$1 node
  echo
  for node in "${NODES[@]}"; do
    printf '  node-%d  clients %s   http://%s   pid %s\n' \
      "$node" "$(client_address "$base" "$node")" "$(http_address "$base" "$node")" "$(node_pid "$DEMO" "$node" || echo -)"
  done
}

# What to type at the prompt that follows.
demo_say_prompt() {
  printf '\n  The cluster may lose 1 of its 3 nodes and go on. Try, at this prompt:\n\n'
  say_try "status" "how the cluster is"
  say_try "put $DEMO_NAMESPACE hello world" ""
  say_try "\\kill 1" "crash a node: the leaders move ..."
  say_try "get $DEMO_NAMESPACE hello" "... and you are answered still"
  say_try "\\start 1" "bring it back"
  say_try "\\partition 1|2,3" "cut it off; \\heal mends that"
  say_try "help" "all that can be typed; Ctrl-D leaves, and the nodes run on"
  echo
}

# What to type in a shell.
demo_say_next() {
  local base=$1 rdb
  rdb=${RDB:-${FLAREDB_BIN_DIR:-target/release}/rdb}
  rdb=${rdb#"$ROOT/"}
  demo_say_nodes "$base"
  printf '\n  The cluster may lose 1 of its 3 nodes and go on. Try:\n\n'
  printf '    export FLAREDB_ENDPOINTS=%s\n' "$(cluster_endpoints "$base")"
  say_try "$rdb status" "how the cluster is"
  say_try "$rdb put $DEMO_NAMESPACE hello world" ""
  say_try "$rdb get $DEMO_NAMESPACE hello" ""
  say_try "$rdb cas --help" "change a key only if nobody else did"
  say_try "kill -9 \$(cat demo-data/node-1.pid)" "crash a node ..."
  say_try "$rdb get $DEMO_NAMESPACE hello" "... and be answered still"
  say_try "./x demo" "start what is not running; at a terminal, open a prompt"
  say_try "./x demo --stop" "stop all of it; the data stays"
  echo
}

say_try() {
  local line
  line=$(printf '    %-42s  %s' "$1" "$2")
  echo "${line%"${line##*[! ]}"}"
}

demo_stop() {
  if [[ -z $(living_nodes "$DEMO") ]]; then
    say "the demo is not running"
    return
  fi
  say "stopping the demo"
  local status=0
  stop_nodes "$DEMO" || status=1
  say "stopped; the data stays in demo-data/: ./x demo goes on with it, rm -r demo-data forgets it"
  return $status
}

# --- ./x demo --check

demo_check() {
  cluster_programs
  start_temporary_cluster
  check_step "namespace" within "$ANSWER_SECONDS_MAX" has_namespace check
  check_step "puts and gets" check_puts_and_gets 0
  local node
  # Each in turn, so that whichever leads is killed as well.
  for node in "${NODES[@]}"; do
    crash_node "$TEMPORARY" "$node"
    check_step "without node $node" check_puts_and_gets "$node"
    start_node "$TEMPORARY" "$node"
    wait_for_node "$TEMPORARY" "$TEMPORARY_BASE" "$node" || die "node $node did not come back after kill -9"
  done
  check_step "all nodes back" check_gets "${NODES[@]}"
  stop_nodes "$TEMPORARY" || die "not every node stopped when asked to"
  say_step "stop" "ok"
  say "the demo works"
}

check_step() {
  local name=$1 started=$SECONDS
  shift
  if ! "$@"; then
    local node
    for node in "${NODES[@]}"; do say_log_end "$TEMPORARY/node-$node.log" 20; done
    die "check failed: $name"
  fi
  say_step "$name" "ok ($((SECONDS - started)) s)"
}

# Writes this round's keys, then reads those of every round so far.
check_puts_and_gets() {
  local round=$1 i
  for ((i = 1; i <= CHECK_KEYS; i++)); do
    within "$ANSWER_SECONDS_MAX" "$RDB" put check "key-$round-$i" "value-$round-$i." || return 1
  done
  # shellcheck disable=SC2046 # one word per round
  check_gets $(seq 0 "$round")
}

check_gets() {
  local round i
  for round in "$@"; do
    for ((i = 1; i <= CHECK_KEYS; i++)); do
      within "$ANSWER_SECONDS_MAX" has_value check "key-$round-$i" "value-$round-$i." || return 1
    done
  done
}

has_value() {
  local namespace=$1 key=$2 want=$3 found
  found=$("$RDB" get "$namespace" "$key") || return 1
  if [[ $found != *"$want"* ]]; then
    echo "$key is '$found', not '$want'"
    return $WRONG_VALUE
  fi
}

# --- clusters that leave nothing behind

# Starts three nodes in a folder that goes when this script ends, however it ends. Sets TEMPORARY and TEMPORARY_BASE.
start_temporary_cluster() {
  TEMPORARY=$(mktemp -d "${TMPDIR:-/tmp}/flaredb.XXXXXX")
  trap remove_temporary_cluster EXIT
  trap 'exit 130' INT TERM HUP
  TEMPORARY_BASE=$(free_port_base)
  export FLAREDB_ENDPOINTS
  FLAREDB_ENDPOINTS=$(cluster_endpoints "$TEMPORARY_BASE")
  start_nodes "$TEMPORARY" "$TEMPORARY_BASE" "${NODES[@]}" || die "the cluster did not start"
}

remove_temporary_cluster() {
  local node
  for node in "${NODES[@]}"; do crash_node "$TEMPORARY" "$node" || true; done
  rm -rf "$TEMPORARY"
}

# Below the ports that the kernel hands out by itself.
free_port_base() {
  local base attempt
  check_port_base "${FLAREDB_DEMO_PORT_BASE:-20000}"
  for ((attempt = 0; attempt < 20; attempt++)); do
    base=${FLAREDB_DEMO_PORT_BASE:-$((20000 + RANDOM % 24 * 500))}
    if [[ -z $(busy_ports "$base") ]]; then
      echo "$base"
      return
    fi
  done
  die_if_busy "$base"
}

check_port_base() {
  if [[ ! $1 =~ ^[0-9]{4,5}$ ]] || ((10#$1 < 1024 || 65000 < 10#$1)); then
    die "FLAREDB_DEMO_PORT_BASE is '$1', not a port from 1024 to 65000"
  fi
}

die_if_busy() {
  local base=$1 busy
  busy=$(busy_ports "$base")
  [[ -z $busy ]] || die "ports that the demo needs are in use: $(paste -sd',' <<<"$busy" | sed 's/,\([0-9]\)/, \1/g')" \
    "stop the program that holds them, or choose others: FLAREDB_DEMO_PORT_BASE=$((base + 1000)) ./x demo"
}

# Repeats a command until it succeeds or the time is over; shows only its last attempt's complaint.
within() {
  local seconds=$1 deadline=$((SECONDS + $1)) output status
  shift
  while true; do
    status=0
    output=$("$@" 2>&1) || status=$?
    if ((status == 0)); then return; fi
    if ((status == WRONG_VALUE || deadline <= SECONDS)); then break; fi
    sleep 0.3
  done
  say_error "$* (tried for $((SECONDS - deadline + seconds)) s): $output"
  return 1
}
