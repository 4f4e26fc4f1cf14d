# SPDX-License-Identifier: Apache-2.0

# Compiles every header of `target` alone. The generated targets are not part of `all`: build
# `all_verify_interface_header_sets`, as the presets do. `.inl` files are not meant to stand alone.
function(pesc_header_tests target)
  if(PESC_BUILD_TESTS)
    set_target_properties(${target} PROPERTIES
      VERIFY_INTERFACE_HEADER_SETS ON
      INTERFACE_HEADER_SETS_TO_VERIFY HEADERS
    )
  endif()
endfunction()
