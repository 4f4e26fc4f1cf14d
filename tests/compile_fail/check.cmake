# SPDX-License-Identifier: Apache-2.0
#
# cmake -DCOMPILER=... -DSOURCE=... -DINCLUDES=... -P check.cmake: compiles SOURCE with both values of
# PESC_EXPECT_FAILURE and compares the messages with its `// EXPECT: <regex>` lines.

cmake_minimum_required(VERSION 3.25)

list(TRANSFORM INCLUDES PREPEND -I OUTPUT_VARIABLE include_flags)

# Sets <prefix>_status and <prefix>_output.
function(compile value prefix)
  execute_process(
    COMMAND ${COMPILER} -std=c++20 -fsyntax-only -DPESC_EXPECT_FAILURE=${value} ${include_flags} ${SOURCE}
    RESULT_VARIABLE status OUTPUT_VARIABLE output ERROR_VARIABLE output
  )
  set(${prefix}_status ${status} PARENT_SCOPE)
  set(${prefix}_output "${output}" PARENT_SCOPE)
endfunction()

file(STRINGS ${SOURCE} expectations REGEX "^// EXPECT: ")
if(NOT expectations)
  message(FATAL_ERROR "${SOURCE}: no line `// EXPECT: <regex>`")
endif()

compile(0 valid)
if(NOT valid_status EQUAL 0)
  message(FATAL_ERROR "${SOURCE}: does not compile with PESC_EXPECT_FAILURE=0:\n${valid_output}")
endif()

compile(1 broken)
if(broken_status EQUAL 0)
  message(FATAL_ERROR "${SOURCE}: compiles with PESC_EXPECT_FAILURE=1")
endif()
foreach(line IN LISTS expectations)
  string(REPLACE "// EXPECT: " "" regex "${line}")
  if(NOT broken_output MATCHES "${regex}")
    message(FATAL_ERROR "${SOURCE}: the message does not match `${regex}`:\n${broken_output}")
  endif()
endforeach()
