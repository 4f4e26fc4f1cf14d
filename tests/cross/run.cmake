# SPDX-License-Identifier: Apache-2.0
#
# Compiles SOURCE by the cross COMPILER into PROGRAM and runs it by EMULATOR.

cmake_minimum_required(VERSION 3.25)

execute_process(
  COMMAND ${COMPILER} -std=c++20 -O2 -Wall -Wextra -Wconversion -Wshadow -Werror -static -pthread
    -I${INCLUDE} -I${TESTS} -isystem ${EIGEN} ${SOURCE} -o ${PROGRAM}
  COMMAND_ERROR_IS_FATAL ANY
)
execute_process(COMMAND ${EMULATOR} ${PROGRAM} COMMAND_ERROR_IS_FATAL ANY)
