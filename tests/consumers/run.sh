#!/usr/bin/env bash
# Builds and runs a small program as a user of samba would.
# Usage: run.sh KIND WORK_FOLDER SAMBA_BUILD_FOLDER CXX, KIND being a function below.
set -euo pipefail
kind=$1 work=$2 samba_build=$3 cxx=$4
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
rm -rf "$work"
mkdir -p "$work"

with_cmake() {  # folder, cmake arguments...
  local project=$here/$1
  shift
  cmake -S "$project" -B "$work/build" -DCMAKE_CXX_COMPILER="$cxx" -DSAMBA_FOLDER="$root" "$@"
  cmake --build "$work/build"
  "$work/build/consumer"
}

find_package() {
  cmake --install "$samba_build" --prefix "$work/prefix"
  with_cmake find_package -DCMAKE_PREFIX_PATH="$work/prefix" -DSAMBA_LIBRARY=samba -DSAMBA_COMPONENTS= "$@"
}
# With warnings that samba does not promise to be free of: they are for the project's code, not for samba's.
warnings="-Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wsign-conversion -Wdouble-promotion -Wuseless-cast"
warnings="$warnings -Wold-style-cast -Werror"
add_subdirectory() { with_cmake add_subdirectory -DSAMBA_LIBRARY=samba "-DCMAKE_CXX_FLAGS=$warnings"; }

# Where there is no OpenMP.
without_openmp=-DCMAKE_DISABLE_FIND_PACKAGE_OpenMP=ON
find_package_without_openmp() { find_package $without_openmp | tee "$work/text" && grep "one thread" "$work/text"; }
add_subdirectory_without_openmp() {
  with_cmake add_subdirectory -DSAMBA_LIBRARY=samba $without_openmp | tee "$work/text" && grep "one thread" "$work/text"
}

# With kernels chosen at run time.
find_package_compiled() {
  cmake -S "$root" -B "$work/samba" -DCMAKE_CXX_COMPILER="$cxx" -DCMAKE_INSTALL_PREFIX="$work/prefix" \
    -DSAMBA_BUILD_TESTS=OFF -DSAMBA_BUILD_EXAMPLES=OFF -DSAMBA_BUILD_BENCHMARKS=OFF -DSAMBA_INSTALL_COMPILED=ON
  cmake --build "$work/samba" --target install
  local consumer=(-DCMAKE_PREFIX_PATH="$work/prefix" -DSAMBA_LIBRARY=compiled -DSAMBA_COMPONENTS=compiled)
  with_cmake find_package "${consumer[@]}"
  # Its names tell whether it was built with OpenMP, as those of the programs do.
  with_cmake find_package "${consumer[@]}" $without_openmp 2>&1 | tee "$work/text" || true
  grep -q "needs OpenMP where it was built with it" "$work/text"
}
add_subdirectory_compiled() { with_cmake add_subdirectory -DSAMBA_LIBRARY=compiled "-DCMAKE_CXX_FLAGS=$warnings"; }
fetch_content() { with_cmake fetch_content; }

# The README's first program with the README's CMakeLists.txt, as a newcomer puts them into two files.
readme() {
  PYTHONPATH=$root/tests/docs python3 - "$root/README.md" "$work" <<'END'
import pathlib, sys
from extract_snippets import snippets_of
snippets = snippets_of("README.md", pathlib.Path(sys.argv[1]).read_text())
for language, name in (("cpp", "mine.cpp"), ("cmake", "CMakeLists.txt")):
    first = next(snippet for snippet in snippets if snippet.language == language)
    pathlib.Path(sys.argv[2], name).write_text(first.code)
END
  cmake -S "$work" -B "$work/build" -DCMAKE_CXX_COMPILER="$cxx" -DFETCHCONTENT_SOURCE_DIR_SAMBA="$root"
  cmake --build "$work/build" --verbose | tee "$work/build.log"
  grep -q -e "-O3" "$work/build.log" || { echo "expected the README's lines to optimise"; exit 1; }
  (cd "$root" && "$work/build/mine" >"$work/text")
  grep -q LORD "$work/text" || { echo "expected the demo model's text, found:"; cat "$work/text"; exit 1; }
}

plain() {
  "$cxx" -std=c++20 -I "$root/include" "$here/main.cpp" -o "$work/consumer"
  "$work/consumer" | grep "not optimised"  # says so, because CMake without a build type does the same
}

# Two translation units that use the same model, each compiled with flags of its own, in one program.
# shellcheck disable=SC2086  # the flags are words
link() {  # flags of the first, flags of the second, flags of the linker
  local compile="$cxx -std=c++20 -I $root/include -c $here/link/logits.cpp"
  $compile $1 -DLOGITS=first_logits -o "$work/first.o"
  $compile $2 -DLOGITS=second_logits -o "$work/second.o"
  # In any order each unit keeps its code, so the bits are the same.
  "$cxx" -std=c++20 "$here/link/main.cpp" "$work/first.o" "$work/second.o" $3 -o "$work/consumer"
  "$cxx" -std=c++20 "$here/link/main.cpp" "$work/second.o" "$work/first.o" $3 -o "$work/other_order"
  "$work/consumer" | tee "$work/text"
  "$work/other_order" | diff "$work/text" -
}
link_same_flags() { link "-O1 -fopenmp" "-O1 -fopenmp" -fopenmp; }
link_mixed_instruction_sets() {
  grep -qw avx2 /proc/cpuinfo || { echo "not run: this processor has no AVX2"; return; }
  link "-O2 -mavx2 -mfma" "-O2" ""
}
link_mixed_openmp() { link "-O1 -fopenmp" "-O1" -fopenmp; }
link_mixed_math() { link "-O2 -ffast-math" "-O2" ""; }
link_mixed_part_of_fast_math() { link "-O2 -funsafe-math-optimizations -ffinite-math-only" "-O2" ""; }

"$kind"
