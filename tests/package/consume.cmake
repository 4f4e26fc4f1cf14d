# SPDX-License-Identifier: Apache-2.0
#
# Configures CONSUMER in BUILD with PREFIX on the package path, builds it and runs every program that
# it makes.

cmake_minimum_required(VERSION 3.25)

execute_process(
  COMMAND ${CMAKE_COMMAND} -E rm -rf ${BUILD}
  COMMAND_ERROR_IS_FATAL ANY
)
execute_process(
  COMMAND ${CMAKE_COMMAND} -S ${CONSUMER} -B ${BUILD} -G ${GENERATOR}
    -DCMAKE_CXX_COMPILER=${COMPILER} -DCMAKE_CXX_COMPILER_LAUNCHER=${LAUNCHER} -DCMAKE_BUILD_TYPE=Release
    -DCMAKE_PREFIX_PATH=${PREFIX} -DPESC_SOURCE_TREE=${SOURCE_TREE} -DPESC_PREFIX=${PREFIX}
    -DCMAKE_RUNTIME_OUTPUT_DIRECTORY=${BUILD}/bin
    "-DCMAKE_CXX_FLAGS=-Wall -Wextra -Wconversion -Wshadow -Werror"
  COMMAND_ERROR_IS_FATAL ANY
)
execute_process(COMMAND ${CMAKE_COMMAND} --build ${BUILD} COMMAND_ERROR_IS_FATAL ANY)

file(GLOB programs ${BUILD}/bin/*)
if(NOT programs)
  message(FATAL_ERROR "${CONSUMER}: built no program")
endif()
foreach(program ${programs})
  execute_process(COMMAND ${program} WORKING_DIRECTORY ${BUILD} COMMAND_ERROR_IS_FATAL ANY)
endforeach()
