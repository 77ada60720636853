# shellcheck shell=bash
# Runs three rdb-server processes on loopback. A cluster is a folder:
#
#   port-base     its first port
#   node-N.toml   a node's configuration; its absolute path is how we recognise the process
#   node-N.pid    the process that was started last
#   node-N.log    what it said
#   node-N/       its data

readonly NODES=(1 2 3)
readonly READY_SECONDS_MAX=60
readonly STOP_SECONDS_MAX=30

# --- programs

# Sets SERVER and RDB, building them unless FLAREDB_BIN_DIR names a folder that has them.
cluster_programs() {
  local folder=${FLAREDB_BIN_DIR:-}
  if [[ -z $folder ]]; then
    setup
    say "building rdb-server and rdb"
    cargo build --release --locked -p rdb-server -p rdb-cli
    folder=$(cargo metadata --locked --no-deps --format-version 1 | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/release
  fi
  SERVER=$folder/rdb-server
  RDB=$folder/rdb
  [[ -x $SERVER && -x $RDB ]] || die "no rdb-server and rdb in $folder"
}

# --- addresses

client_address() { echo "127.0.0.1:$(($1 + $2))"; }
peer_address() { echo "127.0.0.1:$(($1 + 100 + $2))"; }
http_address() { echo "127.0.0.1:$(($1 + 200 + $2))"; }

cluster_endpoints() {
  local base=$1
  echo "$(client_address "$base" 1),$(client_address "$base" 2),$(client_address "$base" 3)"
}

# Prints the ports that something already listens on, one per line with its use.
busy_ports() {
  local base=$1 node
  for node in "${NODES[@]}"; do
    say_if_busy "$(client_address "$base" "$node")" "clients of node $node"
    say_if_busy "$(peer_address "$base" "$node")" "peers of node $node"
    say_if_busy "$(http_address "$base" "$node")" "HTTP of node $node"
  done
}

say_if_busy() {
  local port=${1#*:} use=$2 owner=""
  (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || return 0
  if command -v ss >/dev/null; then
    owner=$(ss -Hltnp "sport = :$port" 2>/dev/null | sed -n 's/.*users:(("\([^"]*\)",pid=\([0-9]*\).*/, held by \1 (pid \2)/p' | sed -n 1p)
  fi
  echo "$port ($use)$owner"
}

# --- one node

# Writes a node's configuration, with the lines of NODE_OPTIONS where that is set.
write_node_config() {
  local folder=$1 base=$2 node=$3 peer
  {
    printf 'cluster_id = "demo"\nnode_id = %d\ndata_dir = "%s"\n' "$node" "$folder/node-$node"
    printf 'listen_client = "%s"\nlisten_peer = "%s"\nlisten_http = "%s"\n' \
      "$(client_address "$base" "$node")" "$(peer_address "$base" "$node")" "$(http_address "$base" "$node")"
    if [[ -n ${NODE_OPTIONS:-} ]]; then printf '%s\n' "$NODE_OPTIONS"; fi
    for peer in "${NODES[@]}"; do
      printf '\n[[nodes]]\nid = %d\nclient = "%s"\npeer = "%s"\n' \
        "$peer" "$(client_address "$base" "$peer")" "$(peer_address "$base" "$peer")"
    done
  } >"$folder/node-$node.toml"
}

start_node() {
  local folder=$1 node=$2 pid attempt
  # In its own session, so that Ctrl-C here does not reach it.
  setsid "$SERVER" --config "$folder/node-$node.toml" >>"$folder/node-$node.log" 2>&1 </dev/null &
  pid=$!
  disown "$pid"
  echo "$pid" >"$folder/node-$node.pid"
  # Until the new process has become rdb-server, it would pass for one that died.
  for ((attempt = 0; attempt < 100; attempt++)); do
    if node_lives "$folder" "$node" || ! kill -0 "$pid" 2>/dev/null; then break; fi
    sleep 0.02
  done
}

# The node's process, if it lives. A pid alone may since have gone to another program.
node_pid() {
  local folder=$1 node=$2 pid
  pid=$(cat "$folder/node-$node.pid" 2>/dev/null) && [[ -n $pid ]] || return 1
  tr '\0' '\n' 2>/dev/null <"/proc/$pid/cmdline" | grep -Fxq -- "$folder/node-$node.toml" || return 1
  echo "$pid"
}

node_lives() {
  node_pid "$1" "$2" >/dev/null 2>&1
}

# Succeeds once the node says that it can serve.
node_is_ready() {
  local base=$1 node=$2 address
  address=$(http_address "$base" "$node")
  [[ $(http_status "$address" /readyz) == 200 ]]
}

# The status code of a GET; without curl, since a fresh machine may lack it.
http_status() {
  local address=$1 path=$2 code=""
  (
    exec 3<>"/dev/tcp/${address%:*}/${address#*:}"
    printf 'GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n' "$path" "$address" >&3
    read -r -t 2 _ code _ <&3
    echo "$code"
  ) 2>/dev/null || true
}

# The body of a GET, and what comes before it.
http_page() {
  local address=$1 path=$2
  (
    exec 3<>"/dev/tcp/${address%:*}/${address#*:}"
    printf 'GET %s HTTP/1.0\r\nHost: %s\r\nConnection: close\r\n\r\n' "$path" "$address" >&3
    timeout 5 cat <&3
  ) 2>/dev/null || true
}

# Waits until a node is ready; fails, with its log, when it died or took too long.
wait_for_node() {
  local folder=$1 base=$2 node=$3 deadline=$((SECONDS + READY_SECONDS_MAX))
  until node_is_ready "$base" "$node"; do
    if ! node_lives "$folder" "$node"; then
      say_error "node $node stopped while starting"
    elif ((deadline <= SECONDS)); then
      say_error "node $node is not ready after $READY_SECONDS_MAX s"
    else
      sleep 0.2
      continue
    fi
    say_log_end "$folder/node-$node.log" 20
    return 1
  done
}

# Ends a node at once, as a crash would.
crash_node() {
  local pid
  pid=$(node_pid "$1" "$2") || return 0
  kill -9 "$pid"
  wait_until_gone "$pid" || die "node $2 (pid $pid) survived kill -9"
}

# Waits for the end of a process. Its command line is empty, and its first thread a zombie, a little before its last thread
# has closed the sockets: only when no other thread is left is it over.
wait_until_gone() {
  local pid=$1 deadline=$((SECONDS + STOP_SECONDS_MAX))
  until process_is_over "$pid"; do
    ((SECONDS < deadline)) || return 1
    sleep 0.05
  done
}

process_is_over() {
  local stat threads
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 0
  threads=("/proc/$1/task/"*)
  # The name may hold anything; the state stands behind its closing bracket.
  [[ ${stat##*) } == [ZX]* ]] && ((${#threads[@]} <= 1))
}

# --- the cluster

living_nodes() {
  local folder=$1 node
  for node in "${NODES[@]}"; do
    if node_lives "$folder" "$node"; then echo "$node"; fi
  done
}

# Starts the given nodes and waits for each of them.
start_nodes() {
  local folder=$1 base=$2 node
  shift 2
  for node in "$@"; do
    write_node_config "$folder" "$base" "$node"
    start_node "$folder" "$node"
  done
  for node in "$@"; do
    wait_for_node "$folder" "$base" "$node" || return 1
    say_step "node-$node" "ready ($(client_address "$base" "$node"))"
  done
}

# Asks every node to stop, waits, and kills those that do not; succeeds when all stopped by themselves.
stop_nodes() {
  local folder=$1 node pid stubborn=0
  local -A pids=()
  for node in "${NODES[@]}"; do
    if pid=$(node_pid "$folder" "$node"); then
      pids[$node]=$pid
      kill -TERM "$pid" 2>/dev/null || true
    fi
  done
  for node in "${!pids[@]}"; do
    if ! wait_until_gone "${pids[$node]}"; then
      say_error "node $node did not stop within $STOP_SECONDS_MAX s of SIGTERM; killing it"
      say_log_end "$folder/node-$node.log" 20
      crash_node "$folder" "$node"
      stubborn=1
    fi
    rm -f "$folder/node-$node.pid"
  done
  return $stubborn
}
