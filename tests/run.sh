#!/usr/bin/env bash
# Builds caisson and runs its tests, section by section. Run as root on Debian 12; packages that are missing are
# installed by apt-get.
#
#   tests/run.sh                 everything but the long runs
#   tests/run.sh --quick         g++ alone: unit and system tests
#   tests/run.sh --long          the long runs alone: the suite `long`, fuzzing, benchmarks, and the section qemu
#   tests/run.sh SECTION...      some of: gcc uml clang options consumers style asan tsan qemu
#   --build DIR                  where to build (default: build/run)
#
# Test programs that fail beside compilers and other tests, three of a section at most, are run once more with nothing
# beside them, and that run counts; the result names them.
#
# The last line is `N passed, N failed, N skipped`; the exit status is 0 only if nothing failed.
set -uo pipefail
exec 4>&1
cd "$(dirname "$0")/.." || exit 2

out=build/run mode=all brief=
wanted=()
while (($#)); do
    case $1 in
        --quick | --long) mode=${1#--} ;;
        --build) out=${2:?--build wants a directory} && shift ;;
        gcc | clang | asan | tsan | options | consumers | uml | qemu | style | long) wanted+=("$1") ;;
        *) sed -n '2,14s/^# \{0,1\}//p' "$0" >&2 && exit 2 ;;
    esac
    shift
done
if ((${#wanted[@]} == 0)); then
    case $mode in
        # asan compiles all that clang does. It leaves out what is about the example programs, and what races with the
        # kernel: a third of its time.
        all) wanted=(gcc uml options consumers style asan tsan) brief=yes ;;
        quick) wanted=(gcc) ;;
        long) wanted=(long qemu) ;;
    esac
fi
mkdir -p "$out" || exit 2
out=$(realpath "$out")
jobs=$(nproc)
passed=0 failed=0 skipped=0
failures=() repeated=()
# Whether sections run beside each other.
beside=
if ((${#wanted[@]} > 1)); then beside=yes; fi
rm -f "$out"/*.again

heading() { printf '\n== %s ==\n' "$1"; }
# What the command prints is shown only if it fails.
check() {
    local what=$1 log
    shift
    log=$(mktemp "$out/log.XXXXXX")
    if "$@" > "$log" 2>&1; then
        passed=$((passed + 1))
        printf 'ok      %s\n' "$what"
    else
        failed=$((failed + 1))
        failures+=("$section: $what")
        printf 'FAILED  %s: %s\n' "$what" "$*"
        tail -n 60 "$log" | sed 's/^/        /'
        rm -f "$log"
        return 1
    fi
    rm -f "$log"
}
show_and_fail() { cat "$1"; return 1; }
# The counts of a results file or directory are added; see tests/support/count.py.
count() {
    local counts later=
    if [[ -n $beside && $section == @(gcc|uml|asan|tsan) ]]; then later=$out/$section.again; fi
    counts=$(python3 tests/support/count.py "$1" ${later:+"$later"} 3>&1 >&4) || counts='0 1 0'
    read -r p f s <<< "$counts"
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
    if ((f > 0)); then failures+=("$section: $f test cases"); fi
    printf '%s: %d passed, %d failed, %d skipped\n' "$section" "$p" "$f" "$s"
}
# configure NAME COMPILER MESON-OPTIONS...
configure() {
    local dir=$out/$1 compiler=$2 linker=
    shift 2
    # The sanitizers' programs are a hundred with the whole library in each.
    if [[ $compiler == clang++ ]]; then linker=CXX_LD=lld; fi
    if [[ -f $dir/build.ninja ]]; then
        check "configure with $compiler" meson configure "$dir" -Dwerror=true "$@"
    else
        rm -rf "$dir"
        check "configure with $compiler" env CXX="$compiler" $linker meson setup "$dir" -Dwerror=true "$@"
    fi
}
# build NAME COMPILER MESON-OPTIONS...: everything, or what the suites of `only` need
build() {
    local targets=()
    configure "$@" || return
    if [[ -n ${only-} ]]; then read -r -d '' -a targets < <(tests/support/targets.py "$out/$1" $only); fi
    check "build without a warning" ninja -C "$out/$1" -j "$jobs" "${targets[@]}"
}
declare -A environment=(
    [asan]='ASAN_OPTIONS=detect_stack_use_after_return=1 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1'
    [tsan]=TSAN_OPTIONS=halt_on_error=1)
declare -A patience=([asan]=8 [tsan]=8)
# run NAME MESON-TEST-OPTIONS...
run() {
    # Two sections may run tests of one build at the same time.
    local dir=$out/$1 text=$out/$1/meson-logs/$section.txt
    rm -f "$dir/meson-logs/$section"*.json
    # The limits in the build files are for a machine of one's own; a busy one may take longer.
    # Signals that the caller ignores, as nohup(1) does, would be ignored by what the tests start.
    env --default-signal ${environment[$1]-} meson test -C "$dir" --no-rebuild --logbase "$section" \
        -t "${patience[$1]-4}" "${@:2}" > "$text" 2>&1
    local log
    log=$(ls "$dir/meson-logs/$section"*.json 2> /dev/null | head -n 1)
    if [[ -n $log ]]; then
        count "$log"
    elif grep -q 'No suitable tests' "$text"; then
        echo "no tests: ${*:2}"
    else
        check "meson test ${*:2}" show_and_fail "$text"
    fi
}
# These compilers' sanitizers cannot place their shadow where the kernel randomises more address bits than they know.
steady=()
if setarch -R true 2> /dev/null; then steady=(--wrapper 'setarch -R'); fi

packages() {
    local missing=() name
    for name in "$@"; do
        dpkg-query -W -f '${Status}' "$name" 2> /dev/null | grep -q 'ok installed' || missing+=("$name")
    done
    if ((${#missing[@]} == 0)); then return 0; fi
    echo "installing ${missing[*]}"
    check "apt-get update" apt-get -qq update || return
    export DEBIAN_FRONTEND=noninteractive
    check "apt-get install" apt-get -qq install --no-install-recommends "${missing[@]}"
}
prepare() {
    section=packages
    if ! command -v dpkg-query > /dev/null; then
        echo "no Debian: the packages are taken as they are"
        return 0
    fi
    local needed=(g++ meson ninja-build pkg-config python3 libtinyxml2-dev doctest-dev librange-v3-dev libmnl-dev
        libseccomp-dev libasio-dev libglib2.0-dev busybox-static iproute2 nftables libvirt-clients uidmap e2fsprogs
        squashfs-tools erofs-utils)
    for name in "${wanted[@]}"; do
        case $name in
            gcc) needed+=(bubblewrap crun lxc) ;;
            clang) needed+=(clang lld) ;;
            asan | tsan | long) needed+=(clang libclang-rt-14-dev lld) ;;
            consumers) needed+=(clang) ;;
            uml) needed+=(user-mode-linux kmod e2fsprogs) ;;
            qemu) needed+=(qemu-system-x86 kmod apparmor) ;;
            style) needed+=(clang lld clang-format clang-tidy) ;;
        esac
    done
    packages "${needed[@]}"
}

# Sections in the background. Compilers are as good beside the system tests, which run one at a time and leave a
# processor idle; they step back for whatever has deadlines to meet.
declare -A job=()
queued=
# aside NAME COMMAND...: starts it now; `await NAME` waits for it and tells what came of it
aside() {
    local section=$1
    shift
    rm -f "$out/$section.result"
    (
        passed=0 failed=0 skipped=0 failures=() SECONDS=0
        "$@"
        printf '%s: %d s beside others\n' "$section" "$SECONDS"
        declare -p passed failed skipped failures | sed 's/^declare/& -g/' > "$out/$section.result"
    ) > "$out/$section.log" 2>&1 4>&1 &
    job[$section]=$!
}
# queue NAME COMMAND...: the same, once what was queued before has ended
queue() {
    aside "$1" in_turn "$queued" "${@:2}"
    queued=${job[$1]}
}
in_turn() {
    renice -n 10 -p "$BASHPID" > /dev/null
    if [[ -n $1 ]]; then tail --pid="$1" -f /dev/null; fi
    SECONDS=0
    "${@:2}"
}
await() {
    local pid=${job[$1]} p=$passed f=$failed s=$skipped all=("${failures[@]}")
    wait "$pid"
    unset "job[$1]"
    cat "$out/$1.log"
    passed=0 failed=1 skipped=0 failures=("$1: ended before its time")
    if [[ -e $out/$1.result ]]; then . "$out/$1.result"; fi
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s)) failures=("${all[@]}" "${failures[@]}")
}
end_tree() {
    local child
    for child in $(pgrep -P "$1"); do end_tree "$child"; done
    kill "$1" 2> /dev/null
}
trap 'for pid in "${job[@]}"; do end_tree "$pid"; done' EXIT

build_gcc() {
    heading "g++: build"
    build gcc g++ -Ddebug=false
}
section_gcc() {
    heading "g++: every test"
    run gcc --suite unit --suite source
    if [[ $mode == quick ]]; then
        run gcc --suite system --num-processes 1
    else
        run gcc --num-processes 1 --no-suite unit --no-suite source --no-suite consumer --no-suite long
    fi
}
section_clang() {
    heading "clang++: build, then the unit tests"
    only='unit source' build clang clang++ -Dbuildtype=debug -Ddebug=false || return
    run clang --suite unit --suite source
}
# Reports name lines, and nothing else that the compiler could note for a debugger. Optimisation costs more time than it
# saves.
sanitized=(-Db_lundef=false -Doptimization=0 -Ddefault_library=static -Ddebug=false -Dcpp_args=-gline-tables-only)
build_asan() {
    heading "address and undefined-behaviour sanitizer: build"
    only="unit system${brief:+ -words -domains -races}" \
        build asan clang++ -Db_sanitize=address,undefined "${sanitized[@]}"
}
section_asan() {
    heading "address and undefined-behaviour sanitizer: unit and system tests"
    run asan "${steady[@]}" --suite unit
    run asan "${steady[@]}" --num-processes 1 --suite system \
        ${brief:+--no-suite words --no-suite domains --no-suite races}
}
build_tsan() {
    heading "thread sanitizer: build"
    only=threads build tsan clang++ -Db_sanitize=thread "${sanitized[@]}"
}
section_tsan() {
    heading "thread sanitizer: the tests with threads"
    run tsan "${steady[@]}" --suite threads --num-processes 1
}
section_options() {
    heading "without XML, networks and filters: build, then the unit tests that could tell"
    only='options' build bare g++ -Dxml=disabled -Dnetwork=disabled -Dseccomp=disabled -Dbuildtype=debug \
        -Ddebug=false -Ddefault_library=shared || return
    run bare --suite options
}
section_consumers() {
    heading "consumers: pkg-config, subproject, headers, what must not compile"
    run gcc --suite consumer
}
# The emulated kernel has one CPU and takes its time.
section_uml() {
    heading "a kernel with cgroup v2 alone, in user-mode Linux: unit and system tests"
    in_uml unit system
}
in_uml() {
    rm -rf "$out/uml"
    check "the kernel boots and runs the tests" \
        env --default-signal tests/vm/uml.sh "$out/gcc" "$out/uml" "$@" && count "$out/uml"
}
# An hour or so, alone on the machine's processors: it is emulated.
section_qemu() {
    heading "Debian's own kernel, in QEMU: unit and system tests"
    [[ -d $out/gcc/linux ]] || check "apt-get update" apt-get -qq update || return
    rm -rf "$out/qemu"
    check "the kernel boots and runs the tests" \
        env --default-signal tests/vm/qemu.sh "$out/gcc" "$out/qemu" unit system && count "$out/qemu"
}
section_long() {
    heading "long runs: the suite, fuzzing, benchmarks"
    if check "a Debian root file system" examples/debian_root.sh "$out/debian"; then
        export CAISSON_DEBIAN_ROOT=$out/debian
    fi
    run gcc --suite long --num-processes 1
    configure fuzz clang++ -Dfuzz=true || return
    mkdir -p "$out/corpus"
    check "build the fuzzers" ninja -C "$out/fuzz" -j "$jobs" tests/fuzz-xml &&
        check "XML: ten minutes of fuzzing" "$out/fuzz/tests/fuzz-xml" -dict=tests/fuzz/xml.dict -max_total_time=600 \
            -artifact_prefix="$out/" "$out/corpus" tests/fuzz/corpus/xml
    tests/bench/run.sh "$out/bench"
}
section_style() {
    heading "style: layout of the source, clang-tidy"
    check "clang-format changes nothing" tests/style.sh format
    local dir=$out/asan
    if [[ ! -f $dir/build.ninja ]]; then
        dir=$out/clang
        [[ -f $dir/build.ninja ]] || only='unit source' build clang clang++ -Dbuildtype=debug -Ddebug=false || return
    fi
    check "clang-tidy has no remark" tests/style.sh tidy "$dir"
}

# What a program said the first time stands above, in its section.
once_more() {
    local section names beside=
    for section in gcc uml asan tsan; do
        [[ -s $out/$section.again ]] || continue
        mapfile -t names < "$out/$section.again"
        if ((${#names[@]} > 3)); then
            failed=$((failed + ${#names[@]}))
            failures+=("$section: ${names[*]}")
            continue
        fi
        heading "$section: once more with nothing beside"
        repeated+=("$section: ${names[*]}")
        case $section in
            gcc) run gcc --num-processes 1 "${names[@]}" ;;
            uml) in_uml "${names[@]}" ;;
            *) run "$section" "${steady[@]}" --num-processes 1 "${names[@]}" ;;
        esac
    done
}

wants() { [[ " ${wanted[*]} " == *" $1 "* ]]; }
alone() {
    local section=$1 began=$SECONDS
    "$2"
    local rc=$?
    printf '%s: %d s\n' "$section" $((SECONDS - began))
    return "$rc"
}
sections() {
    local name
    if wants gcc || wants uml || wants consumers || wants qemu || wants long; then alone gcc build_gcc || return; fi
    if wants uml; then aside uml section_uml; fi
    for name in asan tsan; do
        if wants $name; then queue $name-build build_$name; fi
    done
    for name in clang options consumers style; do
        if wants $name; then queue $name section_$name; fi
    done
    if wants gcc; then alone gcc section_gcc; fi
    # Beside each other: both wait more than they work.
    for name in asan tsan; do
        if wants $name; then
            local before=$failed
            await $name-build
            if ((failed == before)); then aside $name section_$name; fi
        fi
    done
    for name in asan tsan clang options consumers style uml; do
        if [[ -n ${job[$name]-} ]]; then await $name; fi
    done
    once_more
    for name in qemu long; do
        if wants $name; then alone $name section_$name; fi
    done
}
main() {
    if ! command -v python3 > /dev/null && ! command -v apt-get > /dev/null; then
        echo "python3 is missing" >&2
        exit 2
    fi
    heading "packages"
    if prepare; then sections; fi
    heading "result after $SECONDS s"
    for line in "${repeated[@]}"; do printf 'run a second time, alone: %s\n' "$line"; done
    for line in "${failures[@]}"; do printf 'FAILED  %s\n' "$line"; done
    printf '%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
    ((failed == 0))
}
# One line, so that an edit of this file while it runs does not change what runs.
main; exit
