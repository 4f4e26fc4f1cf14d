# SPDX-License-Identifier: Apache-2.0
#
# cmake -DCOMPILER=... "-DINCLUDES=..." [-DREPEAT=3] -P measure.cmake: prints how long typical units take to compile with
# -O2, in seconds and as a multiple of a unit that includes Eigen alone, since machines differ. The fastest of REPEAT counts.

cmake_minimum_required(VERSION 3.25)

if(NOT REPEAT)
  set(REPEAT 3)
endif()
list(TRANSFORM INCLUDES PREPEND -I OUTPUT_VARIABLE include_flags)

# Sets <out> to the milliseconds that a source takes.
function(measure out source)
  set(best)
  foreach(round RANGE 1 ${REPEAT})
    string(TIMESTAMP begin "%s%f")
    execute_process(
      COMMAND ${COMPILER} -std=c++20 -O2 ${ARGN} ${include_flags} -c ${CMAKE_CURRENT_LIST_DIR}/${source} -o /dev/null
      COMMAND_ERROR_IS_FATAL ANY
    )
    string(TIMESTAMP end "%s%f")
    math(EXPR milliseconds "(${end} - ${begin}) / 1000")
    if(NOT best OR milliseconds LESS best)
      set(best ${milliseconds})
    endif()
  endforeach()
  set(${out} ${best} PARENT_SCOPE)
endfunction()

# Two decimals of numerator / denominator.
function(ratio out numerator denominator)
  math(EXPR hundredths "100 * ${numerator} / ${denominator}")
  math(EXPR whole "${hundredths} / 100")
  math(EXPR rest "${hundredths} % 100")
  if(rest LESS 10)
    set(rest "0${rest}")
  endif()
  set(${out} "${whole}.${rest}" PARENT_SCOPE)
endfunction()

measure(eigen empty.cpp)
measure(include include.cpp)
measure(one layers.cpp -DPESC_LAYERS=1)
measure(two layers.cpp -DPESC_LAYERS=2)
measure(compiled layers.cpp -DPESC_LAYERS=1 -DPESC_COMPILED)
measure(compiled_two layers.cpp -DPESC_LAYERS=2 -DPESC_COMPILED)
math(EXPR second "${two} - ${one}")
if(second LESS 0)
  set(second 0)
endif()
math(EXPR compiled_second "${compiled_two} - ${compiled}")
if(compiled_second LESS 0)
  set(compiled_second 0)
endif()
ratio(compiled_ratio ${compiled} ${eigen})
ratio(compiled_second_ratio ${compiled_second} ${eigen})
ratio(include_ratio ${include} ${eigen})
ratio(one_ratio ${one} ${eigen})
ratio(second_ratio ${second} ${eigen})
message(NOTICE "Eigen/Core alone          ${eigen} ms")
message(NOTICE "pesc.hpp                  ${include} ms  ${include_ratio} x  (limit 2 x)")
message(NOTICE "one layer, both ways      ${one} ms  ${one_ratio} x  (limit 6 x)")
message(NOTICE "one more layer          + ${second} ms  ${second_ratio} x  (limit 0.5 x)")
message(NOTICE "with PESC_COMPILED:")
message(NOTICE "one layer, both ways      ${compiled} ms  ${compiled_ratio} x")
message(NOTICE "one more layer          + ${compiled_second} ms  ${compiled_second_ratio} x")
