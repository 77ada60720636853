# shellcheck shell=bash
# ./x fuzz: gives bytes to everything that reads them from outside, guided by which code they come to. docs/reliability.md
#
#   ./x fuzz [--seconds N] [TARGET]...    each target in turn, or all
#   ./x fuzz --replay FILE TARGET         one input again
#
# The engine is libFuzzer, as the crate libfuzzer-sys builds it; the code is instrumented by the stable compiler, without a
# sanitizer: our own code has no unsafe blocks for one to watch. Overflows and debug assertions count as failures.
#
#   target/fuzz/corpus/TARGET/   inputs that have come to new code: a later run goes on from them
#   target/fuzz/found/           inputs that broke something

FUZZ_SECONDS=60
# An input has some kilobytes, and is done within a millisecond.
readonly FUZZ_INPUT_BYTES_MAX=8192
readonly FUZZ_INPUT_SECONDS_MAX=10
readonly FUZZ_MEMORY_MIB_MAX=1024
# A target that does less has hung or has been starved. The slowest does some thousands.
readonly FUZZ_EXECUTIONS_PER_SECOND_MIN=50

run_fuzz() {
  local replay="" targets=() target binary
  while (($# > 0)); do
    case "$1" in
      --seconds)
        [[ ${2:-} =~ ^[1-9][0-9]*$ ]] || usage_error "--seconds needs a number from 1"
        FUZZ_SECONDS=$2
        shift 2
        ;;
      --replay)
        [[ -f ${2:-} ]] || usage_error "--replay needs a file"
        replay=$2
        shift 2
        ;;
      *)
        fuzz_targets | grep -qx -- "$1" || usage_error "fuzz has no target '$1': $(fuzz_targets | xargs)"
        targets+=("$1")
        shift
        ;;
    esac
  done
  # A backtrace costs more memory than an input may hold.
  export RUST_BACKTRACE=0
  setup
  fuzz_build
  binary=target/fuzz/$(fuzz_triple)/fuzz/rdb-fuzz
  if [[ -n $replay ]]; then
    ((${#targets[@]} == 1)) || usage_error "--replay needs one target"
    FLAREDB_FUZZ_TARGET=${targets[0]} "$binary" -timeout="$FUZZ_INPUT_SECONDS_MAX" "$replay"
    return
  fi
  if ((${#targets[@]} == 0)); then mapfile -t targets < <(fuzz_targets); fi
  for target in "${targets[@]}"; do fuzz_one "$binary" "$target"; done
}

# As the crate names them.
fuzz_targets() {
  sed -n 's/^ *Target { name: "\([a-z-]*\)".*/\1/p' rdb-fuzz/src/targets/mod.rs
}

fuzz_triple() {
  rustc -vV | sed -n 's/^host: //p'
}

# A target folder of its own, and a target triple, so that build scripts are built without the flags.
fuzz_build() {
  local flags="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4"
  flags+=" -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table"
  flags+=" -Cllvm-args=-sanitizer-coverage-trace-compares"
  RUSTFLAGS=$flags cargo build --locked --profile fuzz -p rdb-fuzz --features engine --target "$(fuzz_triple)" \
    --target-dir target/fuzz
}

# Runs one target for its time, and says what came of it.
fuzz_one() {
  local binary=$1 target=$2 status=0 corpus seeds found log tally
  corpus=$PWD/target/fuzz/corpus/$target seeds=$PWD/target/fuzz/seeds/$target found=$PWD/target/fuzz/found
  log=$PWD/target/fuzz/$target.log tally=$PWD/target/fuzz/$target.tally
  # Seeds are written anew by each run.
  rm -rf "$seeds" "$tally"
  mkdir -p "$corpus" "$seeds" "$found"
  FLAREDB_FUZZ_TARGET=$target FLAREDB_FUZZ_SEEDS=$seeds FLAREDB_FUZZ_TALLY=$tally "$binary" \
    -max_total_time="$FUZZ_SECONDS" -max_len="$FUZZ_INPUT_BYTES_MAX" -timeout="$FUZZ_INPUT_SECONDS_MAX" \
    -rss_limit_mb="$FUZZ_MEMORY_MIB_MAX" -use_value_profile=1 -print_final_stats=1 -artifact_prefix="$found/$target-" \
    "$corpus" "$seeds" >"$log" 2>&1 || status=$?
  if ((status != 0)); then fuzz_failed "$target" "$log" "$status"; fi
  fuzz_judge "$target" "$log" "$tally"
}

fuzz_failed() {
  local target=$1 log=$2 status=$3 input
  say_log_end "$log" 25
  input=$(sed -n 's/.*Test unit written to //p' "$log" | tail -n 1)
  [[ -n $input ]] || die "the target $target ended with status $status, and kept no input; its log is $log"
  die "the target $target was broken by an input" "again: ./x fuzz --replay ${input#"$PWD/"} $target" \
    "once it is mended, keep the input: mv ${input#"$PWD/"} rdb-fuzz/regressions/$target/"
}

# A run that has done next to nothing, or to which nothing was ever valid, has shown nothing.
fuzz_judge() {
  local target=$1 log=$2 tally=$3 executed=0 accepted=0 executions coverage files
  executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  coverage=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -n 1)
  files=$(find "$PWD/target/fuzz/corpus/$target" -type f | wc -l)
  if [[ -f $tally ]]; then read -r executed accepted <"$tally"; fi
  say_step "$target" "${executions:-0} executions, $accepted of the first $executed accepted, coverage ${coverage:-0}, corpus $files"
  ((FUZZ_SECONDS * FUZZ_EXECUTIONS_PER_SECOND_MIN <= ${executions:-0})) ||
    die "the target $target executed ${executions:-0} inputs in $FUZZ_SECONDS s, and has shown nothing" "its log: $log"
  ((0 < accepted)) || die "no input of the target $target was accepted, and it has shown nothing" "its log: $log"
}
