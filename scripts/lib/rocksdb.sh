# shellcheck shell=bash
# Builds RocksDB once per machine, instead of once per profile and checkout, and tells cargo where it lies.
#
#   <cache>/rocksdb/<key>/librocksdb.a   the archive; the key names everything that it depends on
#   <cache>/rocksdb/<key>.lock           held by the one run that builds it
#   <cache>/rocksdb/<key>.build/         that run's target folder, gone when it succeeds
#   .cargo/local.toml                    the archive's folder, for plain cargo commands

# Compiling one of RocksDB's files takes up to a gigabyte.
readonly MEMORY_PER_JOB_KIB=1048576
# Where nobody watches, progress is a line now and then.
readonly PROGRESS_LINE_SECONDS=30

setup_rocksdb() {
  local cache version key
  cache=${FLAREDB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/flaredb}/rocksdb
  version=$(rocksdb_sys_version)
  key=$(rocksdb_key "$version")
  if [[ -f $cache/$key/librocksdb.a ]]; then
    say_step "RocksDB ${version#*+}" "cached"
  else
    mkdir -p "$cache"
    rocksdb_build_alone "$cache" "$key" "$version"
  fi
  rocksdb_tell_cargo "$cache/$key"
}

rocksdb_sys_version() {
  awk '$0 == "name = \"librocksdb-sys\"" { getline; gsub(/"/, ""); print $3 }' Cargo.lock
}

# <version>-<features>-<target>-<hash of the rust flags>-<compiler>
rocksdb_key() {
  local version=$1 features target flags
  features=$(cargo tree --locked -p librocksdb-sys -e no-dev --depth 0 -f '{f}' | sed -n 1p)
  [[ -n $features ]] || die "cargo could not tell the features of librocksdb-sys" "type: cargo tree -p librocksdb-sys"
  target=$(rustc -vV | sed -n 's/^host: //p')
  flags=$(awk -v section="[target.$target]" '/^\[/ { inside = $0 == section } inside && /^rustflags/' .cargo/config.toml |
    sha256sum | cut -c1-8)
  printf '%s-%s-%s-%s-%s' "$version" "${features//,/+}" "$target" "$flags" "$(compiler_name)"
}

# Builds, or waits for the run that already does.
rocksdb_build_alone() {
  local cache=$1 key=$2 version=$3 lock
  # The compilers inherit the lock: should this script be killed, nobody starts a second build beside theirs.
  exec {lock}>"$cache/$key.lock"
  if ! flock -n "$lock"; then
    say "another ./x is building RocksDB; waiting for it"
    rocksdb_show_progress "$cache/$key.build" "$version" "rocksdb_wait_is_over $lock"
  fi
  if [[ ! -f $cache/$key/librocksdb.a ]]; then
    rocksdb_build "$cache" "$key" "$version"
  fi
  exec {lock}>&-
  rm -f "$cache/$key.lock"
}

rocksdb_wait_is_over() {
  flock -n "$1"
}

rocksdb_build() {
  local cache=$1 key=$2 version=$3
  local build=$cache/$key.build log=$cache/$key.log pid status=0 archive
  say "building RocksDB ${version#*+}, once on this machine: 15 to 50 minutes"
  say "log: $log"
  rm -rf "$build"
  rocksdb_cargo_build "$build" >"$log" 2>&1 </dev/null &
  pid=$!
  # shellcheck disable=SC2064 # this build's process and folder, not those of the time of the signal
  trap "rocksdb_abandon $pid '$build'" EXIT
  trap 'exit 130' INT TERM HUP
  rocksdb_show_progress "$build" "$version" "rocksdb_is_gone $pid"
  wait "$pid" || status=$?
  trap - EXIT INT TERM HUP
  archive=$(find "$build" -path '*/librocksdb-sys-*/out/librocksdb.a' -print -quit 2>/dev/null || true)
  if ((status != 0)) || [[ -z $archive ]]; then
    rm -rf "$build"
    say_log_end "$log" 20
    die "RocksDB could not be built (cargo's status: $status)" "the whole log: $log" \
      "if a compiler was killed, memory ran out: FLAREDB_JOBS=1 ./x setup"
  fi
  rocksdb_move_into_place "$archive" "$cache/$key"
  rm -rf "$build" "$log"
  say_step "RocksDB ${version#*+}" "built"
}

# The workspace's own lock file, features and flags, whatever this shell's environment says.
# ROCKSDB_COMPILE goes before a ROCKSDB_LIB_DIR that an older .cargo/local.toml sets.
rocksdb_cargo_build() {
  local build=$1
  # In its own session, so that one kill ends cargo and every compiler under it.
  exec env -u RUSTFLAGS -u CARGO_ENCODED_RUSTFLAGS -u CARGO_BUILD_TARGET -u CFLAGS -u CXXFLAGS \
    -u ROCKSDB_LIB_DIR -u ROCKSDB_STATIC -u ROCKSDB_INCLUDE_DIR -u ROCKSDB_CXX_STD ROCKSDB_COMPILE=1 \
    setsid cargo build --release -p librocksdb-sys --locked --target-dir "$build" --jobs "$(rocksdb_jobs)"
}

rocksdb_jobs() {
  local processors memory
  processors=$(nproc)
  memory=$(awk '/^MemAvailable:/ { print $2 }' /proc/meminfo)
  local fit=$((memory / MEMORY_PER_JOB_KIB))
  ((fit > 0)) || fit=1
  echo "${FLAREDB_JOBS:-$((fit < processors ? fit : processors))}"
}

rocksdb_abandon() {
  local pid=$1 build=$2
  kill -- "-$pid" 2>/dev/null || kill "$pid" 2>/dev/null || true
  wait "$pid" 2>/dev/null || true
  rm -rf "$build" 2>/dev/null || true
  printf '\n'
  say_error "RocksDB's build was stopped before its end" "./x setup starts it again"
}

rocksdb_is_gone() {
  ! kill -0 "$1" 2>/dev/null
}

# Atomic for whoever looks only for librocksdb.a: it appears whole or not at all.
rocksdb_move_into_place() {
  local archive=$1 folder=$2
  mkdir -p "$folder"
  cp "$archive" "$folder/.librocksdb.a.$$"
  mv "$folder/.librocksdb.a.$$" "$folder/librocksdb.a"
}

# Shows how many files are compiled until the command `over` succeeds.
rocksdb_show_progress() {
  local build=$1 version=$2 over=$3 total compiled started=$SECONDS first="" seen=0 next_line=0 line
  total=$(rocksdb_files "$version")
  until $over; do
    compiled=$(rocksdb_compiled "$build")
    # The pace is measured from the first file seen: before it come bindgen and, for one who waits, another's work.
    if ((compiled > 0)) && [[ -z $first ]]; then
      first=$SECONDS
      seen=$compiled
    fi
    line="$(rocksdb_bar "$compiled" "$total"), $(clock $((SECONDS - started))) elapsed"
    if ((seen < compiled)); then
      line+=", about $(clock $(((SECONDS - first) * (total - compiled) / (compiled - seen)))) left"
    fi
    if [[ -t 1 ]]; then
      printf '\r  %s\033[K' "$line"
    elif ((next_line <= SECONDS - started)); then
      say "$line"
      next_line=$((SECONDS - started + PROGRESS_LINE_SECONDS))
    fi
    sleep 1
  done
  if [[ -t 1 ]]; then printf '\r\033[K'; fi
}

rocksdb_bar() {
  local compiled=$1 total=$2 width=30 filled
  if ((compiled == 0)); then
    printf 'RocksDB: preparing'
    return
  fi
  ((compiled < total)) || compiled=$total
  filled=$((width * compiled / total))
  printf 'RocksDB [%s%s] %3d%%, %d of %d files' "$(printf '%*s' "$filled" '' | tr ' ' '#')" \
    "$(printf '%*s' $((width - filled)) '' | tr ' ' '.')" $((100 * compiled / total)) "$compiled" "$total"
}

rocksdb_compiled() {
  find "$1" -path '*/librocksdb-sys-*/out/*' -name '*.o' 2>/dev/null | wc -l || true
}

# As many object files as the crate lists sources: it leaves one out and adds one of its own.
rocksdb_files() {
  local list
  list=$(find "${CARGO_HOME:-$HOME/.cargo}/registry/src" -maxdepth 3 \
    -path "*/librocksdb-sys-$1/rocksdb_lib_sources.txt" -print -quit 2>/dev/null || true)
  if [[ -n $list ]]; then wc -l <"$list"; else echo 343; fi
}

# Plain cargo reads local.toml through .cargo/config.toml; it is written anew only when it says something else.
rocksdb_tell_cargo() {
  local folder=$1 file=.cargo/local.toml wanted
  wanted=$(printf '# Written by ./x setup, which repairs it when it is wrong.\n[env]\nROCKSDB_LIB_DIR = "%s"\nROCKSDB_STATIC = "1"' "$folder")
  if [[ ! -f $file || $(<"$file") != "$wanted" ]]; then
    printf '%s\n' "$wanted" >"$file.$$"
    mv "$file.$$" "$file"
  fi
  export ROCKSDB_LIB_DIR=$folder ROCKSDB_STATIC=1
  unset ROCKSDB_COMPILE
}
