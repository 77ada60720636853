# shellcheck shell=bash
# How ./x speaks: one line per step, errors with what to do next.

# A step that takes no time worth showing: "name ........ result".
say_step() {
  local name=$1 result=$2 dots
  dots=$(printf '%*s' $((26 > ${#name} ? 26 - ${#name} : 1)) '' | tr ' ' '.')
  printf '  %s %s %s\n' "$name" "$dots" "$result"
}

say() {
  printf '  %s\n' "$*"
}

# Prints an error and the hints that follow it; the caller decides whether to stop.
say_error() {
  printf 'error: %s\n' "$1" >&2
  shift
  local hint
  for hint in "$@"; do printf '  hint: %s\n' "$hint" >&2; done
}

die() {
  say_error "$@"
  exit 1
}

usage_error() {
  say_error "$1" "./x help lists the words"
  exit 2
}

# Seconds as 0:07 or 1:02:03.
clock() {
  local seconds=$1
  if ((seconds < 3600)); then
    printf '%d:%02d' $((seconds / 60)) $((seconds % 60))
  else
    printf '%d:%02d:%02d' $((seconds / 3600)) $((seconds / 60 % 60)) $((seconds % 60))
  fi
}

# Shows the end of a log, indented, so that it reads as a quotation.
say_log_end() {
  local log=$1 lines=$2
  [[ -s $log ]] || return 0
  printf '  the last lines of %s:\n' "$log" >&2
  tail -n "$lines" "$log" | sed 's/^/    | /' >&2
}
