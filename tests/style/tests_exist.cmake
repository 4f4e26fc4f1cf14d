# SPDX-License-Identifier: Apache-2.0
#
# cmake -DROOT=<source tree> -P tests_exist.cmake: every public header has a test of its name,
# include/pesc/<folder>/<header>.hpp -> tests/<folder>/<header>_test.cpp.

cmake_minimum_required(VERSION 3.25)

# Headers without behaviour of their own, each with the place that proves it.
set(tested_elsewhere
  core/macros.hpp   # core/error_test.cpp: the checks; odr/: the ABI name; emulated/: the regions
  moe/backend.hpp   # static asserts at the end of the umbrella headers
)

file(GLOB files RELATIVE ${ROOT}/include/pesc ${ROOT}/include/pesc/*/*.hpp)
set(missing)
foreach(file ${files})
  if(file IN_LIST tested_elsewhere)
    continue()
  endif()
  string(REGEX REPLACE "\\.hpp$" "_test.cpp" test ${file})
  if(NOT EXISTS ${ROOT}/tests/${test})
    list(APPEND missing "include/pesc/${file}: no tests/${test}")
  endif()
endforeach()

if(missing)
  list(JOIN missing "\n  " missing)
  message(FATAL_ERROR "headers without a test:\n  ${missing}")
endif()
