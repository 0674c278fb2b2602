# Read by ./dev: static musl builds of the router for OpenWrt, and the packages.
#
# In: $root, $cache, $CARGO_TARGET_DIR and the helpers of ./dev. Out: stripped, static
# binaries agentmon-router-MACHINE in $musl_dist; packages and feed indexes where asked.
#
# Two ways to a compiler for the musl target, both with zig (from PyPI, pinned by hash in
# musl-tools.txt) as C compiler, linker and libc:
#   rustup   the project's toolchain, where rustup has or can add the target
#   debian   Debian's rustc and the standard library from source (rustc-web, cargo-web,
#            rust-web-src), where it cannot, as on machines that reach a Debian mirror only
# AGENTMON_MUSL_ROUTE=rustup|debian chooses; otherwise the first that works is taken.
# shellcheck shell=bash

musl_dist=${AGENTMON_MUSL_DIR:-$CARGO_TARGET_DIR/musl-dist}
# Seconds rustup gets to add a target: on a machine without a way out it may hang.
rustup_patience_s=180

# Debian's packages land here, whatever rustup has put first on the path.
debian_cargo=/usr/bin/cargo
debian_rustc=/usr/bin/rustc
debian_std=/usr/lib/rustlib/src/rust/library/std/Cargo.toml

rustup_has() { [ -n "$(find "$(cd "$root" && rustc --print sysroot)/lib/rustlib/$1/lib" -name 'libstd-*.rlib' 2>/dev/null)" ]; }

rustup_adds() {
  command -v rustup >/dev/null || return 1
  say "asking rustup for the target $1"
  (cd "$root" && timeout "$rustup_patience_s" rustup target add "$1" </dev/null >"$cache/rustup.log" 2>&1) && rustup_has "$1"
}

# The standard library from source is 0.1 MB smaller, made for size and without backtraces.
rustup_source() {
  local library; library=$(cd "$root" && rustc --print sysroot)/lib/rustlib/src/rust/library/std/Cargo.toml
  [ -e "$library" ] || { command -v rustup >/dev/null \
    && (cd "$root" && timeout "$rustup_patience_s" rustup component add rust-src </dev/null >>"$cache/rustup.log" 2>&1) \
    && [ -e "$library" ]; }
}

debian_has() { [ -x "$debian_rustc" ] && [ -x "$debian_cargo" ] && [ -e "$debian_std" ]; }

debian_adds() {
  command -v apt-get >/dev/null || return 1
  say "installing for the musl target: rustc-web cargo-web rust-web-src (apt-get, no recommends)"
  as_root env DEBIAN_FRONTEND=noninteractive sh -c \
    'apt-get update -qq && apt-get install -qq -y --no-install-recommends rustc-web cargo-web rust-web-src </dev/null' \
    >"$cache/apt.log" 2>&1 && debian_has
}

# Says which route gives a compiler for target $1; what is there goes before what must come.
musl_route() {
  local target=$1 route
  for route in ${AGENTMON_MUSL_ROUTE:-rustup debian}; do
    "${route}_has" "$target" && { echo "$route"; return; }
  done
  for route in ${AGENTMON_MUSL_ROUTE:-rustup debian}; do
    "${route}_adds" "$target" && { echo "$route"; return; }
  done
  return 1
}

# Brings zig and cargo-zigbuild into the cache folder; sets musl_tools.
need_musl_tools() {
  local list=$root/openwrt-feed/musl-tools.txt sum tmp
  sum=$(sha256sum "$list"); musl_tools=$cache/musl-tools-${sum:0:12}
  [ -x "$musl_tools/ziglang/zig" ] && [ -x "$musl_tools/bin/cargo-zigbuild" ] && return 0
  python3 -m pip --version >/dev/null 2>&1 || apt_need "fetching zig" pip3:python3-pip || return 1
  say "fetching zig and cargo-zigbuild (100 MB, once)"
  tmp=$(mktemp -d "$cache/fetch.XXXXXX")
  if ! python3 -m pip install --quiet --no-deps --only-binary :all: --require-hashes \
    --target "$tmp" --requirement "$list" </dev/null >"$cache/pip.log" 2>&1
  then
    rm -rf "$tmp"; say "could not fetch them: see $cache/pip.log"
    return 1
  fi
  rm -rf "$musl_tools"; mv "$tmp" "$musl_tools"
}

# What the router never uses is left out of its C: SQLite's full-text search, R-trees, JSON,
# dates, UTF-16, statistics, extensions, hooks and checks of its caller; zstd's slow levels
# (level 3 is what is sent) and the faster of two decoders.
small_flags() {
  local part
  LIBSQLITE3_FLAGS="-USQLITE_ENABLE_LOAD_EXTENSION -USQLITE_SOUNDEX"
  for part in API_ARMOR FTS3 FTS3_PARENTHESIS FTS5 RTREE STAT4 DBSTAT_VTAB COLUMN_METADATA; do
    LIBSQLITE3_FLAGS="$LIBSQLITE3_FLAGS -USQLITE_ENABLE_$part"
  done
  for part in JSON LOAD_EXTENSION DEPRECATED TRACE PROGRESS_CALLBACK SHARED_CACHE AUTHORIZATION COMPLETE \
    DESERIALIZE UTF16 GET_TABLE INCRBLOB DATETIME_FUNCS AUTOMATIC_INDEX TCL_VARIABLE; do
    LIBSQLITE3_FLAGS="$LIBSQLITE3_FLAGS -DSQLITE_OMIT_$part"
  done
  CFLAGS="${CFLAGS:-} -fno-asynchronous-unwind-tables -fno-unwind-tables"
  for part in GREEDY LAZY LAZY2 BTLAZY2 BTOPT BTULTRA; do
    CFLAGS="$CFLAGS -DZSTD_EXCLUDE_${part}_BLOCK_COMPRESSOR"
  done
  CFLAGS="$CFLAGS -DHUF_FORCE_DECOMPRESS_X1 -DZSTD_FORCE_DECOMPRESS_SEQUENCES_SHORT -DZSTD_STRIP_ERROR_STRINGS"
  export LIBSQLITE3_FLAGS CFLAGS RUSTFLAGS="${RUSTFLAGS:-} -C force-unwind-tables=no"
}

# One machine (aarch64, x86_64): $musl_dist/agentmon-router-MACHINE.
musl_router() (
  machine=$1; target=$machine-unknown-linux-musl
  route=$(musl_route "$target") || { say "no compiler for $target: neither rustup nor Debian's packages can be had (see $cache/rustup.log, $cache/apt.log)"; exit 1; }
  need_musl_tools || exit 1
  say "building agentmon-router for $machine (static musl, $route's compiler)"
  small_flags
  export RUSTFLAGS="$RUSTFLAGS -C link-arg=-Wl,-T,$root/openwrt-feed/no-unwind.ld"
  # Where this machine keeps things belongs into no binary.
  RUSTFLAGS="$RUSTFLAGS --remap-path-prefix=$root=agentmon --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=cargo"
  export CARGO_ZIGBUILD_ZIG_PATH=$musl_tools/ziglang/zig CARGO_ZIGBUILD_CACHE_DIR=$cache/zigbuild
  export ZIG_GLOBAL_CACHE_DIR=$cache/zig ZIG_LOCAL_CACHE_DIR=$cache/zig
  # A folder for each compiler: they would throw each other's results away.
  build=$CARGO_TARGET_DIR/musl-$route
  args=(--target-dir "$build" --locked --profile small -p agentmon-router --bin agentmon-router --target "$target")
  case $route in
    # Full paths: rustup's proxies must not come first. zig brings musl's start files, which
    # rustc would look for beside a standard library that it lacks.
    debian)
      export RUSTC=$debian_rustc CARGO=$debian_cargo
      RUSTFLAGS="$RUSTFLAGS -C link-self-contained=no -C target-feature=+crt-static" ;;
  esac
  if [ "$route" = debian ] || rustup_source; then
    export RUSTC_BOOTSTRAP=1
    # A panic says what, not where: the places are 2 % of the binary, and tell of this machine.
    RUSTFLAGS="$RUSTFLAGS -Zlocation-detail=none"
    args+=(-Zbuild-std=std,panic_abort -Zbuild-std-features=optimize_for_size)
  fi
  cd "$root" && "$musl_tools/bin/cargo-zigbuild" zigbuild "${args[@]}" || exit 1
  mkdir -p "$musl_dist"
  cp "$build/$target/small/agentmon-router" "$musl_dist/.new-$machine"
  mv "$musl_dist/.new-$machine" "$musl_dist/agentmon-router-$machine"
)

cmd_musl() {
  mkdir -p "$cache"; need_toolchain
  local machine
  for machine in "${@:-aarch64}"; do
    case $machine in
      aarch64 | x86_64) musl_router "$machine" ;;
      *) die "unknown machine '$machine': aarch64 or x86_64" ;;
    esac
  done
  ls -l "$musl_dist" >&2
}

# What the tests look for. A machine that can have no compiler for musl leaves them out, loudly.
musl_for_tests() {
  local machine
  for machine in aarch64 x86_64; do
    rm -f "$musl_dist/agentmon-router-$machine"
    if [ "$machine" != aarch64 ] && [ "$machine" != "$(uname -m)" ]; then continue; fi
    musl_router "$machine" || say "the tests of the static $machine binary will be left out"
  done
}

# OpenWrt's name for the processor of a Raspberry Pi 4 or CM4, and of a PC.
openwrt_arch() { case $1 in aarch64) echo aarch64_cortex-a72 ;; *) echo "$1" ;; esac; }

# Packages and feed indexes in OUT, signed with the keys in AGENTMON_FEED_KEYS.
cmd_pack() {
  local out=${1:-$CARGO_TARGET_DIR/feed} machine args=()
  mkdir -p "$cache"; need_toolchain
  for machine in aarch64 x86_64; do
    musl_router "$machine"
    args+=(--binary "$(openwrt_arch "$machine")=$musl_dist/agentmon-router-$machine")
  done
  if [ -n "${AGENTMON_FEED_KEYS:-}" ]; then args+=(--keys "$AGENTMON_FEED_KEYS")
  else say "nothing will be signed: AGENTMON_FEED_KEYS names no folder (./dev feed-keys FOLDER makes one)"; fi
  SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$root" log -1 --format=%ct)} \
    cargo_ run --quiet --locked -p agentmon-pack -- feed --feed "$root/openwrt-feed" --out "$(realpath -m "$out")" "${args[@]}"
  say "the feed is in $out"
}

# Makes the keys of a feed in FOLDER; they belong into no repository.
cmd_feed-keys() {
  [ $# = 1 ] || die "which folder? ./dev feed-keys FOLDER"
  mkdir -p "$cache"; need_toolchain
  cargo_ run --quiet --locked -p agentmon-pack -- keygen "$(realpath -m "$1")"
}
