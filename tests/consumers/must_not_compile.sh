#!/usr/bin/env bash
# Misuse is refused by the compiler, with each compiler: copies of what has one owner, ignored results, mixed-up types.
. "$(dirname "$0")/common.sh"

status=0
# The umbrella is compiled once for each compiler; each program is only what follows it.
echo '#include <caisson/caisson.hpp>' > "$temporary/all.hpp"
precompile() {
    local suffix=gch
    if [[ $1 == clang++ ]]; then suffix=pch; fi
    "$1" -std=c++20 "${warnings[@]}" -I "$source_dir/include" -x c++-header "$temporary/all.hpp" \
        -o "$temporary/all.hpp.$suffix"
}
# The text of the program is on standard input.
compile() {
    cat > "$temporary/one.cpp"
    "$1" -std=c++20 "${warnings[@]}" -I "$source_dir/include" -include "$temporary/all.hpp" -fsyntax-only \
        "$temporary/one.cpp" 2> "$temporary/errors"
}
accept() {
    if ! compile "$compiler"; then
        printf '%s: refuses %s:\n' "$compiler" "$1"
        cat "$temporary/errors"
        status=1
    fi
}
# refuse WHAT REASON: the compiler's message must match REASON, so that no typing error passes for a refusal.
refuse() {
    if compile "$compiler"; then
        printf '%s: compiles, and should not: %s\n' "$compiler" "$1"
        status=1
    elif ! grep -qE "$2" "$temporary/errors"; then
        printf '%s: refuses %s, but not for /%s/:\n' "$compiler" "$1" "$2"
        cat "$temporary/errors"
        status=1
    fi
}
copied='deleted|implicitly deleted|call to deleted'
ignored='nodiscard|unused-result|unused-value'

for compiler in "${compilers[@]}"; do
    precompile "$compiler"
    accept "right use" << 'END'
caisson::Fd pass(caisson::Fd fd) { return fd; }
int number(const caisson::Fd& fd) { return fd.get(); }
END
    for type in Fd Process Namespace Pty Mount Cgroup Bridge Container Controller Helper; do
        # A type whose header is not there is not tested; the set of headers is headers.sh's business.
        grep -qE "^class (\[\[[^]]*\]\] )?$type\b" "$source_dir"/include/caisson/*.hpp || continue
        refuse "a copy of a $type" "$copied" << END
caisson::$type copy(const caisson::$type& other) { return other; }
END
        refuse "an assigned copy of a $type" "$copied" << END
void assign(caisson::$type& one, const caisson::$type& other) { one = other; }
END
    done
    refuse "a released descriptor that nobody takes" "$ignored" << 'END'
void leak(caisson::Fd& fd) { fd.release(); }
END
    refuse "a duplicate that nobody takes" "$ignored" << 'END'
void leak(const caisson::Fd& fd) { fd.duplicate(); }
END
    refuse "a namespace that nobody takes" "$ignored" << 'END'
void nothing() { caisson::Namespace::current(caisson::NamespaceKind::net); }
END
    refuse "a descriptor as a condition turned into a number" 'convert|conversion' << 'END'
int number(const caisson::Fd& fd) { return fd; }
END
    refuse "a plain number as a descriptor with an owner" 'convert|conversion' << 'END'
void take(caisson::Fd);
void give() { take(3); }
END
    refuse "a kind of namespace from a number" 'convert|conversion|cannot initialize' << 'END'
caisson::NamespaceKind kind = 1;
END
    if [[ -e $source_dir/include/caisson/container.hpp ]]; then
        refuse "a container that nobody owns" "$ignored" << 'END'
void start(const caisson::ContainerSpec& spec) { caisson::Container::start(spec); }
END
    fi
done
exit $status
