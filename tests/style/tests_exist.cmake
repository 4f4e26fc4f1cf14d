# SPDX-License-Identifier: Apache-2.0
#
# cmake -DROOT=<source tree> -P tests_exist.cmake: every public header has a test of its name,
# include/pesc/<folder>/<header>.hpp -> tests/<folder>/<header>_test.cpp.

cmake_minimum_required(VERSION 3.25)

# Headers that another file proves, as <header>=<file under tests/>: plain types without behaviour of their own, or
# parts that only make sense together.
set(tested_elsewhere
  core/array.hpp=core/random_test.cpp
  core/macros.hpp=odr/crossing.cpp
  core/product_options.hpp=cpu/matmul_test.cpp
  moe/backend.hpp=moe/layer_test.cpp
  io/instantiate.hpp=model_instances.cpp
  model/attention_block.hpp=model/llama_test.cpp
  model/llama_shape.hpp=model/llama_test.cpp
  model/weights.hpp=model/llama_test.cpp
  moe/routing_types.hpp=moe/route_test.cpp
  text/tokenizer_parts.hpp=text/tokenizer_test.cpp
  train/evaluate.hpp=train/trainer_test.cpp
  train/expert_load.hpp=train/trainer_test.cpp
  train/line_reader.hpp=train/records_test.cpp
  train/record_fields.hpp=train/records_test.cpp
  train/svg.hpp=train/report_test.cpp
)

file(GLOB files RELATIVE ${ROOT}/include/pesc ${ROOT}/include/pesc/*/*.hpp)
set(missing)
foreach(file ${files})
  string(REGEX REPLACE "\\.hpp$" "_test.cpp" test ${file})
  foreach(entry ${tested_elsewhere})
    if(entry MATCHES "^${file}=(.+)$")
      set(test ${CMAKE_MATCH_1})
    endif()
  endforeach()
  if(NOT EXISTS ${ROOT}/tests/${test})
    list(APPEND missing "include/pesc/${file}: no tests/${test}")
  endif()
endforeach()

if(missing)
  list(JOIN missing "\n  " missing)
  message(FATAL_ERROR "headers without a test:\n  ${missing}")
endif()
