# SPDX-License-Identifier: Apache-2.0

set(PESC_WARNING_FLAGS -Wall -Wextra -Wconversion -Wshadow)
if(PESC_WERROR)
  list(APPEND PESC_WARNING_FLAGS -Werror)
endif()

# Compiles the sources of `target` with the warnings that the library promises to be clean under. The
# installed targets carry no warnings: they are the business of the program, not of the library.
function(pesc_warnings target)
  target_compile_options(${target} PRIVATE "$<$<COMPILE_LANGUAGE:CXX>:${PESC_WARNING_FLAGS}>")
endfunction()
