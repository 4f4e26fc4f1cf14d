# SPDX-License-Identifier: Apache-2.0
#
# One function per kind of test.

set(PESC_TEST_DEFINITIONS
  "PESC_TEST_DATA=\"${PROJECT_SOURCE_DIR}/tests/data\""
  "PESC_EXAMPLE_DATA=\"${PROJECT_SOURCE_DIR}/examples/data\""
  "PESC_DEFAULT_DATA=\"${PROJECT_SOURCE_DIR}/../shared/data\""
  "PESC_DEFAULT_GOLDEN=\"${PROJECT_SOURCE_DIR}/../shared/golden\""
)

# Exit status by which a test says that it lacks something and did not run.
set(PESC_SKIP_STATUS 77)

# Flags, definitions and include path that the sources of every kind of test share.
function(pesc_test_flags target)
  pesc_warnings(${target})
  target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR}/tests)
  target_compile_definitions(${target} PRIVATE ${PESC_TEST_DEFINITIONS})
endfunction()

# An executable `test_<name>` from doctest sources, with one CTest test per test case, registered when it is
# built. Test cases whose doctest description holds the word `slow` get the label slow.
#
#   pesc_test(<name> SOURCES <file>... [LIBRARIES <target>...] [OPTIONS <flag>...] [LABEL <label>] [LAUNCHER <command>])
#
# LAUNCHER starts each test: a simulator, for example.
function(pesc_test name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "LABEL;LAUNCHER" "SOURCES;LIBRARIES;OPTIONS")
  set(listing --reporters=ctest --ctest-folder=${name})
  if(arg_LABEL)
    list(APPEND listing --ctest-label=${arg_LABEL})
  endif()
  if(arg_LAUNCHER)
    list(APPEND listing --ctest-launcher=${arg_LAUNCHER})
  endif()
  set(target test_${name})
  set(list ${CMAKE_CURRENT_BINARY_DIR}/${target}_cases.cmake)
  set(include ${CMAKE_CURRENT_BINARY_DIR}/${target}_include.cmake)

  add_executable(${target} ${arg_SOURCES})
  target_link_libraries(${target} PRIVATE ${arg_LIBRARIES} pesc_test_main)
  target_compile_options(${target} PRIVATE ${arg_OPTIONS})
  pesc_test_flags(${target})

  add_custom_command(TARGET ${target} POST_BUILD
    COMMAND ${target} --list-test-cases ${listing} --out=${list}
    BYPRODUCTS ${list}
    COMMENT "Listing the test cases of ${target}"
    VERBATIM
  )
  # A program that was not built must not vanish from the count of tests without a word.
  file(WRITE ${include}
    "if(EXISTS [==[${list}]==])\n  include([==[${list}]==])\n"
    "else()\n  add_test([==[${name}/NOT_BUILT]==] [==[${target}]==])\nendif()\n"
  )
  set_property(DIRECTORY APPEND PROPERTY TEST_INCLUDE_FILES ${include})
endfunction()

# A test that this machine cannot run: stays in the list, under its name, with the reason.
function(pesc_skipped_test name reason)
  add_test(NAME ${name} COMMAND ${CMAKE_COMMAND} -E echo "SKIPPED: ${name} (${reason})")
  set_tests_properties(${name} PROPERTIES SKIP_REGULAR_EXPRESSION "^SKIPPED: ")
endfunction()

# Runs a CMake script as a test: pesc_script_test(<name> <script> <label> [<VARIABLE>=<value>...])
function(pesc_script_test name script label)
  list(TRANSFORM ARGN PREPEND -D OUTPUT_VARIABLE definitions)
  add_test(NAME ${name} COMMAND ${CMAKE_COMMAND} ${definitions} -P ${script})
  set_tests_properties(${name} PROPERTIES
    LABELS ${label} TIMEOUT 900 SKIP_REGULAR_EXPRESSION "^SKIPPED: "
  )
endfunction()

# A source with two faces: it must compile with PESC_EXPECT_FAILURE=0, and with 1 it must fail with a message
# that matches every `// EXPECT: <regex>` line of the file.
function(pesc_compile_fail_test source)
  cmake_path(GET source STEM stem)
  set(includes "$<TARGET_PROPERTY:pesc_compile_only,INCLUDE_DIRECTORIES>")
  add_test(NAME compile_fail/${stem}
    COMMAND ${CMAKE_COMMAND}
      -DCOMPILER=${CMAKE_CXX_COMPILER} -DSOURCE=${source} "-DINCLUDES=${includes}"
      -P ${PROJECT_SOURCE_DIR}/tests/compile_fail/check.cmake
  )
  set_tests_properties(compile_fail/${stem} PROPERTIES LABELS compile TIMEOUT 300)
endfunction()
