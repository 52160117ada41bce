# The matrix: other compilers, flags, instruction sets and ways of use, each a test with the label `matrix`.
# They run after the quick tests; those that use all processors themselves, one at a time. What is left to
# `scripts/test --everything` stands under SAMBA_BUILD_MATRIX=EVERYTHING, with its reason in CONTRIBUTING.md.
if(NOT SAMBA_GXX OR NOT SAMBA_CLANGXX)
  message(FATAL_ERROR "The matrix needs g++, and clang++ with OpenMP: scripts/install_dependencies --all")
endif()
find_program(SAMBA_DOXYGEN doxygen REQUIRED)
mark_as_advanced(SAMBA_DOXYGEN)
set(samba_matrix_folder ${PROJECT_BINARY_DIR}/matrix)
file(MAKE_DIRECTORY ${samba_matrix_folder}/docs)

# samba_matrix_test(name [ALONE] command...); ALONE: with no other test beside it.
function(samba_matrix_test name)
  cmake_parse_arguments(PARSE_ARGV 1 arg ALONE "" "")
  add_test(NAME matrix.${name} COMMAND ${arg_UNPARSED_ARGUMENTS})
  # ctest starts with the tests that cost most, and a test that says nothing costs 0 or what it last took.
  get_property(count GLOBAL PROPERTY samba_matrix_count)
  math(EXPR count "0${count} + 1")
  set_property(GLOBAL PROPERTY samba_matrix_count ${count})
  set_tests_properties(matrix.${name} PROPERTIES
    LABELS matrix RUN_SERIAL ${arg_ALONE} TIMEOUT 3600 COST -${count} ENVIRONMENT PYTHONDONTWRITEBYTECODE=1)
endfunction()

samba_matrix_test(doxygen ${CMAKE_COMMAND} -E env SAMBA_DOCS_OUTPUT=${samba_matrix_folder}/docs
  ${CMAKE_COMMAND} -E chdir ${PROJECT_SOURCE_DIR}/docs ${SAMBA_DOXYGEN} Doxyfile)
samba_matrix_test(fuzz bash ${PROJECT_SOURCE_DIR}/tests/matrix/fuzz.sh
  ${SAMBA_CLANGXX} ${samba_matrix_folder}/fuzz 30)

samba_matrix_test(other_flags
  Python3::Interpreter ${PROJECT_SOURCE_DIR}/tests/matrix/other_flags.py ${SAMBA_GXX} ${SAMBA_CLANGXX})

# Projects that use samba.
function(samba_consumer kind compiler)
  get_filename_component(compiler_name ${compiler} NAME)
  samba_matrix_test(consumer.${kind}.${compiler_name} bash ${PROJECT_SOURCE_DIR}/tests/consumers/run.sh ${kind}
    ${samba_matrix_folder}/consumers/${kind}.${compiler_name} ${PROJECT_BINARY_DIR} ${compiler})
endfunction()
foreach(kind find_package find_package_without_openmp find_package_compiled add_subdirectory
    add_subdirectory_without_openmp add_subdirectory_compiled fetch_content readme)
  samba_consumer(${kind} ${SAMBA_GXX})
endforeach()
foreach(kind plain link_same_flags link_mixed_instruction_sets link_mixed_openmp link_mixed_math
    link_mixed_part_of_fast_math)
  samba_consumer(${kind} ${SAMBA_GXX})
  samba_consumer(${kind} ${SAMBA_CLANGXX})
endforeach()

# samba::compiled against programs compiled for each instruction set, and on processors that lack the better ones.
function(samba_bits name library)
  add_executable(bits_${name} ${PROJECT_SOURCE_DIR}/tests/compiled/bits.cpp)
  target_link_libraries(bits_${name} PRIVATE ${library})
  target_include_directories(bits_${name} SYSTEM PRIVATE ${SAMBA_XSIMD_INCLUDE})
  target_compile_options(bits_${name} PRIVATE ${ARGN})
endfunction()
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set(check_bits bash ${PROJECT_SOURCE_DIR}/tests/compiled/check_bits.sh)
  set(demo_model ${PROJECT_SOURCE_DIR}/examples/demo_model)
  samba_bits(compiled samba::compiled)
  samba_bits(sse2 samba::samba)
  samba_bits(avx2 samba::samba -march=x86-64-v3)
  samba_bits(avx512 samba::samba -march=x86-64-v4)
  samba_bits(avx512_vnni samba::samba -march=x86-64-v4 -mavx512vnni)
  samba_bits(avx512_bf16 samba::samba -march=x86-64-v4 -mavx512vnni -mavx512bf16)
  foreach(set sse2 avx2 avx512 avx512_vnni avx512_bf16)
    samba_matrix_test(compiled.${set} ${check_bits} $<TARGET_FILE:bits_compiled> $<TARGET_FILE:bits_${set}> ${demo_model})
  endforeach()
  samba_matrix_test(compiled.on_sse2 ${check_bits}
    $<TARGET_FILE:bits_compiled> $<TARGET_FILE:bits_sse2> ${demo_model} qemu64)
  samba_matrix_test(compiled.on_avx2 ${check_bits}
    $<TARGET_FILE:bits_compiled> $<TARGET_FILE:bits_avx2> ${demo_model} Haswell)
endif()

# Published models, downloaded; the large one in --everything only.
set(real_models smollm2)
if(SAMBA_BUILD_MATRIX STREQUAL EVERYTHING)
  list(APPEND real_models gemma3)
endif()
foreach(name ${real_models})
  add_executable(real_${name} ${PROJECT_SOURCE_DIR}/tests/real/${name}.cpp)
  target_link_libraries(real_${name} PRIVATE samba_program nlohmann_json::nlohmann_json)
  samba_matrix_test(real.${name} bash ${PROJECT_SOURCE_DIR}/tests/real/run.sh ${name} $<TARGET_FILE:real_${name}>
    ${samba_matrix_folder}/models ${PROJECT_SOURCE_DIR}/tests/data/real/${name}.json)
  set_tests_properties(matrix.real.${name} PROPERTIES SKIP_RETURN_CODE 77)
endforeach()
samba_matrix_test(real.smollm2_chat bash ${PROJECT_SOURCE_DIR}/tests/real/run.sh smollm2 $<TARGET_FILE:12_chat>
  ${samba_matrix_folder}/models --no-table)
set_tests_properties(matrix.real.smollm2_chat PROPERTIES SKIP_RETURN_CODE 77)
set_tests_properties(matrix.real.smollm2_chat PROPERTIES DEPENDS matrix.real.smollm2
  FAIL_REGULAR_EXPRESSION "error: " PASS_REGULAR_EXPRESSION "The capital of France is Paris\\." )

samba_matrix_test(compile_time ALONE
  Python3::Interpreter ${CMAKE_CURRENT_LIST_DIR}/../compile_time/check_compile_time.py ${SAMBA_GXX})

# samba_stage(name "compiler flags" [CXX compiler] [TARGETS targets...] [TESTS ctest arguments...]
#   [OPTIONS cmake arguments...]): the tests built and run with these flags.
function(samba_stage name flags)
  cmake_parse_arguments(PARSE_ARGV 2 arg "" "CXX" "TARGETS;TESTS;OPTIONS")
  if(NOT arg_CXX)
    set(arg_CXX ${SAMBA_GXX})
  endif()
  if(NOT arg_TARGETS)
    set(arg_TARGETS all)
  endif()
  list(JOIN arg_TARGETS " " targets)
  list(JOIN arg_TESTS " " tests)
  samba_matrix_test(${name} ALONE bash ${PROJECT_SOURCE_DIR}/tests/matrix/stage.sh
    ${samba_matrix_folder}/${name} "${targets}" "${tests}"
    -DCMAKE_CXX_COMPILER=${arg_CXX} -DCMAKE_BUILD_TYPE=None "-DCMAKE_CXX_FLAGS=${flags}"
    -DSAMBA_WERROR=${SAMBA_WERROR} -DSAMBA_BUILD_BENCHMARKS=OFF
    -DCMAKE_DISABLE_FIND_PACKAGE_CUDAToolkit=ON ${arg_OPTIONS})  # flags of the processor's compiler
endfunction()

set(kernels_and_golden TARGETS tests_kernels tests_golden TESTS -L "kernels|golden")
set(no_examples OPTIONS -DSAMBA_BUILD_EXAMPLES=OFF)
set(sanitizers "-O1 -g1 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer")
# Checks that AddressSanitizer makes too, as of null pointers, are left to it: they took a fifth of the time to compile.
string(APPEND sanitizers " -fno-sanitize=null,object-size,vptr")
# The demo's whole text takes minutes with sanitizers and runs nothing that small models do not.
set(sanitized TESTS -LE "source|slow" -E "demo_model.*bits.per.byte" ${no_examples})

samba_stage(sse2 "-O2" ${kernels_and_golden})
samba_stage(avx2 "-O2 -march=x86-64-v3" ${kernels_and_golden})
samba_stage(fast_math "-O3 -ffast-math -march=native" ${kernels_and_golden})
# Whole models at -O0 take minutes.
samba_stage(O0 "-O0" TARGETS tests_kernels tests_runtime TESTS -L "kernels|runtime")
# clang++ compiles them in half of g++'s time.
samba_stage(sanitizers "${sanitizers}" CXX ${SAMBA_CLANGXX} ${sanitized})
# clang's OpenMP loses memory of its own when a team grows, which leaks.txt leaves out. Of the stack of an allocation
# only the caller is kept: all that the threads of a team allocate has OpenMP further down.
set_property(TEST matrix.sanitizers APPEND PROPERTY ENVIRONMENT
  LSAN_OPTIONS=suppressions=${CMAKE_CURRENT_LIST_DIR}/leaks.txt ASAN_OPTIONS=malloc_context_size=2)
samba_stage(clang_kernels "-O2 -march=native" CXX ${SAMBA_CLANGXX} ${kernels_and_golden})

if(SAMBA_BUILD_MATRIX STREQUAL EVERYTHING)
  samba_stage(clang "-O2 -march=native" CXX ${SAMBA_CLANGXX} TESTS -LE source OPTIONS -DSAMBA_BUILD_BENCHMARKS=ON)
  samba_stage(fast_math_everything "-O3 -ffast-math -march=native" TESTS -LE source ${no_examples})
  samba_stage(O0_everything "-O0" TESTS -LE "source|slow" -E "demo_model|golden_models|trajectory" ${no_examples})
  samba_stage(sanitizers_everything "${sanitizers}" ${sanitized})
endif()
