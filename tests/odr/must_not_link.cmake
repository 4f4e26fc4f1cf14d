# SPDX-License-Identifier: Apache-2.0
#
# cmake -DCOMPILER=... -DFLAGS=... -DOBJECTS=... -DOUTPUT=... -P must_not_link.cmake

cmake_minimum_required(VERSION 3.25)

separate_arguments(flags UNIX_COMMAND "${FLAGS}")
execute_process(
  COMMAND ${COMPILER} ${flags} ${OBJECTS} -o ${OUTPUT} -pthread
  RESULT_VARIABLE status OUTPUT_VARIABLE output ERROR_VARIABLE output
)
if(status EQUAL 0)
  message(FATAL_ERROR "a context passed between units with different -march was linked")
endif()
if(NOT output MATCHES "undefined [^\n]*(pass_context|abi_)")
  message(FATAL_ERROR "the link failed for another reason than the context:\n${output}")
endif()
