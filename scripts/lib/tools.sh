# shellcheck shell=bash
# Checks what the build needs and, where it may, installs what is missing.

# The oldest compilers whose C++20 is enough for RocksDB.
readonly GCC_MAJOR_MIN=11
readonly CLANG_MAJOR_MIN=14

# What x86-64-v3 and RocksDB's checksums need, by the kernel's names; see .cargo/config.toml.
readonly X86_64_FLAGS=(avx2 bmi1 bmi2 fma f16c movbe abm pclmulqdq)
readonly AARCH64_FLAGS=(crc32 aes sha2)

setup_tools() {
  check_processor
  check_packages
  check_rust
  say_step "toolchain" "ok ($(cargo --version | cut -d' ' -f1,2), $(compiler_name), $(protoc_version))"
}

check_processor() {
  local wanted present flag missing=()
  case "$(uname -s)-$(uname -m)" in
    Linux-x86_64) wanted=("${X86_64_FLAGS[@]}") ;;
    Linux-aarch64) wanted=("${AARCH64_FLAGS[@]}") ;;
    *) die "FlareDB builds on Linux on x86_64 and aarch64; this is $(uname -s) on $(uname -m)" ;;
  esac
  present=" $(grep -m1 -iE '^(flags|features)[[:space:]]*:' /proc/cpuinfo | cut -d: -f2) "
  for flag in "${wanted[@]}"; do
    [[ $present == *" $flag "* ]] || missing+=("$flag")
  done
  if ((${#missing[@]} > 0)); then
    die "this processor lacks ${missing[*]}, which .cargo/config.toml compiles for" \
      "FlareDB needs a processor from 2013 or later (Intel Haswell, AMD Excavator, any Zen, ARMv8 with crypto)" \
      "in a virtual machine, let the guest see the host's processor (QEMU: -cpu host)"
  fi
}

# --- Rust

check_rust() {
  local channel
  channel=$(sed -n 's/^channel *= *"\(.*\)"/\1/p' rust-toolchain.toml)
  # A fresh login shell has rustup's folder in its PATH; cron, sudo and CI often do not.
  if ! command -v cargo >/dev/null && [[ -x ${CARGO_HOME:-$HOME/.cargo}/bin/cargo ]]; then
    export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
  fi
  command -v cargo >/dev/null ||
    die "cargo is missing" "install Rust from https://rustup.rs, open a new shell and run ./x again"
  if command -v rustup >/dev/null && ! has_rust_with_components; then
    say "installing Rust $channel with rustup"
    rustup toolchain install "$channel" --profile minimal --component rustfmt --component clippy ||
      die "rustup could not install Rust $channel" "type: rustup toolchain install $channel"
  fi
  check_rust_version
}

has_rust_with_components() {
  cargo --version && cargo fmt --version && cargo clippy --version
} >/dev/null 2>&1

check_rust_version() {
  local have want
  have=$(rustc --version | cut -d' ' -f2)
  want=$(sed -n 's/^rust-version *= *"\(.*\)"/\1/p' Cargo.toml)
  version_at_least "$have" "$want" ||
    die "rustc is $have; FlareDB needs $want or later" "install it with rustup: https://rustup.rs"
}

version_at_least() {
  local have=$1 want=$2
  [[ $(printf '%s\n%s\n' "$want" "$have" | sort -V | sed -n 1p) == "$want" ]]
}

# --- packages of the system

# One line per missing package: "package|what it is for".
missing_packages() {
  has_compiler || echo "g++|a C++20 compiler for RocksDB: g++ $GCC_MAJOR_MIN or later"
  command -v make >/dev/null || echo "make|make"
  command -v "${PROTOC:-protoc}" >/dev/null || echo "protobuf-compiler|protoc, for the wire and for Raft's messages"
  has_protobuf_includes || echo "libprotobuf-dev|protobuf's own .proto files, which others import"
  has_libclang || echo "libclang-dev|libclang, for the bindings to RocksDB"
}

check_packages() {
  local missing packages
  missing=$(missing_packages)
  [[ -n $missing ]] || return 0
  packages=$(cut -d'|' -f1 <<<"$missing" | xargs)
  say "missing:"
  cut -d'|' -f2 <<<"$missing" | sed 's/^/    /'
  install_packages "$packages"
  missing=$(missing_packages)
  [[ -z $missing ]] || die_missing "$missing"
}

install_packages() {
  local packages=$1 as_root=()
  command -v apt-get >/dev/null ||
    die "this system has no apt-get, so ./x cannot install what is missing" \
      "install with its own package manager what Debian calls: $packages" "or, with nix: nix develop"
  if (($(id -u) != 0)); then
    if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
      as_root=(sudo -n)
    else
      die "installing packages needs root" "type: sudo apt-get install $packages"
    fi
  fi
  say "installing with apt-get: $packages"
  local log
  log=$(mktemp)
  # The lists of a fresh image are empty or old, so they are fetched first; a mirror that is down shows in the install.
  "${as_root[@]}" apt-get update >"$log" 2>&1 || true
  # shellcheck disable=SC2086 # one word per package
  if ! "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y --no-install-recommends $packages >>"$log" 2>&1 </dev/null; then
    say_log_end "$log" 15
    rm -f "$log"
    die "apt-get could not install $packages" "type: apt-get update && apt-get install $packages"
  fi
  rm -f "$log"
}

# What is still missing after apt-get said that it succeeded is there, but too old.
die_missing() {
  local what
  what=$(cut -d'|' -f2 <<<"$1" | paste -sd';' | sed 's/;/; /g')
  die "still missing: $what" "this release of the system may be too old: Debian 12, Ubuntu 22.04 or later have all of it" \
    "a newer compiler beside the system's is chosen with CXX, such as: CXX=g++-12 ./x setup"
}

has_compiler() {
  local predicate="defined(__clang__) ? __clang_major__ >= $CLANG_MAJOR_MIN : __GNUC__ >= $GCC_MAJOR_MIN"
  # <compare> and <span> tell a compiler without its C++20 library from a whole one.
  printf '#include <compare>\n#include <span>\n#if !(%s)\n#error too old\n#endif\n' "$predicate" |
    "${CXX:-c++}" -std=c++20 -fsyntax-only -x c++ - 2>/dev/null
}

# The compiler and its version, such as g++-12.2.0, as it names the RocksDB that it built.
compiler_name() {
  local cxx=${CXX:-c++}
  if [[ $("$cxx" -dM -E -x c++ /dev/null) == *__clang__* ]]; then
    printf 'clang++-%s' "$("$cxx" -dumpversion)"
  else
    printf 'g++-%s' "$("$cxx" -dumpfullversion)"
  fi
}

# Debian keeps them apart from protoc; other distributions bring both in one. Without them etcd's client does not build.
has_protobuf_includes() {
  local folder status=0
  command -v "${PROTOC:-protoc}" >/dev/null || return 1
  folder=$(mktemp -d)
  printf 'syntax = "proto3";\nimport "google/protobuf/descriptor.proto";\n' >"$folder/probe.proto"
  "${PROTOC:-protoc}" -I "$folder" -o /dev/null "$folder/probe.proto" 2>/dev/null || status=1
  rm -r "$folder"
  return $status
}

protoc_version() {
  "${PROTOC:-protoc}" --version | sed 's/libprotoc/protoc/'
}

# The library that bindgen loads, and the compiler's own headers beside it.
has_libclang() {
  if [[ -n ${LIBCLANG_PATH:-} ]]; then
    any_file "$LIBCLANG_PATH"/libclang*.so* || [[ -f $LIBCLANG_PATH ]]
    return
  fi
  any_file /usr/lib/llvm-*/lib/libclang*.so* /usr/lib/*-linux-gnu/libclang*.so* /usr/lib/libclang*.so* /usr/lib64/libclang*.so* &&
    { command -v clang >/dev/null || any_file /usr/lib/llvm-*/lib/clang/*/include/stddef.h /usr/lib*/clang/*/include/stddef.h; }
}

any_file() {
  local file
  for file in "$@"; do
    [[ -e $file ]] && return 0
  done
  return 1
}
