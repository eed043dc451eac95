# What the consumer tests share. Sourced; expects CAISSON_SOURCE.
set -euo pipefail
source_dir=${CAISSON_SOURCE:?run it through meson test}
temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
warnings=(-Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wold-style-cast -Werror)

compilers=()
for compiler in g++ clang++; do
    if command -v "$compiler" > /dev/null; then
        compilers+=("$compiler")
    else
        echo "no $compiler on this machine"
    fi
done
