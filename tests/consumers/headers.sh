#!/usr/bin/env bash
# Each public header compiles alone, without a warning, with each compiler; the umbrella header stays light.
. "$(dirname "$0")/common.sh"

status=0
# The headers below detail/ are reached through the others: they are compiled alone with the first compiler only.
compile_one() {
    local compiler=$1 header=$2 file
    file=$(mktemp "$temporary/XXXXXX.cpp")
    printf '#include <%s>\n#include <%s>\nint main() {}\n' "$header" "$header" > "$file"
    "$compiler" -std=c++20 "${warnings[@]}" -I "$source_dir/include" -fsyntax-only "$file" && return
    echo "$compiler: <$header> does not compile alone"
    return 1
}
headers() { cd "$source_dir/include" && find caisson -name '*.hpp' | sort; }
running=0
for compiler in "${compilers[@]}"; do
    while read -r header; do
        if [[ $compiler != "${compilers[0]}" && $header == caisson/detail/* ]]; then continue; fi
        compile_one "$compiler" "$header" &
        running=$((running + 1))
        if ((running >= $(nproc))); then
            wait -n || status=1
            running=$((running - 1))
        fi
    done < <(headers)
done
while ((running-- > 0)); do wait -n || status=1; done

umbrella=$source_dir/include/caisson/caisson.hpp
while read -r header; do
    case $header in
        caisson/caisson.hpp | caisson/xml.hpp | caisson/detail/*) continue ;;
    esac
    grep -q "^#include <$header>" "$umbrella" || {
        echo "caisson.hpp does not include <$header>"
        status=1
    }
done < <(headers)

# The program that the README begins with is whole.
sed -n '/^```cpp$/,/^```$/{/^```/d;p}' "$source_dir/README.md" > "$temporary/readme.cpp"
g++ -std=c++20 "${warnings[@]}" -I "$source_dir/include" -fsyntax-only "$temporary/readme.cpp" || {
    echo "README.md: its program does not compile"
    status=1
}

echo '#include <caisson/caisson.hpp>' > "$temporary/umbrella.cpp"
g++ -std=c++20 -I "$source_dir/include" -M "$temporary/umbrella.cpp" | tr -s ' \\' '\n' > "$temporary/reached"
slow='/range/v3/|/tinyxml2\.h$|/libmnl/|/c\+\+/[0-9]+/(iostream|filesystem|functional|regex|thread|fstream)$'
if grep -E "$slow" "$temporary/reached"; then
    echo "caisson.hpp reaches what is slow to compile, or what users need not have"
    status=1
fi
lines=$(g++ -std=c++20 -I "$source_dir/include" -E -P "$temporary/umbrella.cpp" | wc -l)
echo "caisson.hpp: $lines lines after preprocessing"
if ((lines > 60000)); then
    echo "more than 60,000 lines"
    status=1
fi
exit $status
