#!/usr/bin/env bash
# Layout and habits of the source: style.sh format | tidy [BUILD]. BUILD is a build directory of clang++.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2

case ${1-} in
    format)
        # .clang-format decides; `clang-format -i` of the named files mends it.
        differs=0
        while read -r file; do
            # Not --dry-run: clang-format 14 complains there of every closing brace of an inline namespace.
            clang-format "$file" | cmp -s - "$file" && continue
            echo "clang-format -i $file"
            differs=$((differs + 1))
        done < <(find include src tests examples -name '*.hpp' -o -name '*.cpp' | sort)
        echo "$differs files are laid out otherwise than .clang-format says"
        ((differs == 0))
        ;;
    tidy)
        # .clang-tidy has the checks. The umbrella brings every public header but xml.hpp along.
        build=${2:?style.sh tidy BUILD}
        umbrella=$(mktemp --suffix=.cpp)
        trap 'rm -f "$umbrella"' EXIT
        echo '#include <caisson/caisson.hpp>' > "$umbrella"
        remarks=$(
            {
                clang-tidy --quiet -p "$build" src/launch.cpp &
                clang-tidy --quiet --config-file=.clang-tidy "$umbrella" -- -std=c++20 -Iinclude
                wait
            } 2>&1 | grep -E 'warning:|error:|No such file|not found' | sed "s,^.*/\.\./,," | sort -u
        )
        [[ -z $remarks ]] && echo "clang-tidy has no remarks" && exit
        printf '%s\n' "$remarks"
        exit 1
        ;;
    *)
        sed -n '2s/^# //p' "$0" >&2
        exit 2
        ;;
esac
