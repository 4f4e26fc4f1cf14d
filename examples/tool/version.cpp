// SPDX-License-Identifier: Apache-2.0
#include "pesc/version.hpp"

#include <Eigen/Core>

#include "pesc/cpu/isa.hpp"
#include "tool/program.hpp"

namespace pesc::tool {

namespace {

std::string cuda_text() {
#if defined(PESC_TOOL_CUDA)
  return PESC_TOOL_CUDA;
#else
  return "none";
#endif
}

}  // namespace

std::string version_text() {
  std::string compiler;
#if defined(__clang__)
  compiler = pesc::detail::concat("clang ", __clang_major__, '.', __clang_minor__, '.', __clang_patchlevel__);
#elif defined(__GNUC__)
  compiler = pesc::detail::concat("gcc ", __GNUC__, '.', __GNUC_MINOR__, '.', __GNUC_PATCHLEVEL__);
#else
  compiler = "unknown";
#endif
  std::string sets;
  for (const cpu::isa level : {cpu::isa::scalar, cpu::isa::avx2, cpu::isa::avx512, cpu::isa::avx512_bf16})
    if (level <= cpu::detect_isa())
      sets += pesc::detail::concat(sets.empty() ? "" : " ", cpu::name_of(level));
  return pesc::detail::concat("pesc ", version_string, "\ncompiler: ", compiler, "\ninstruction sets: ", sets,
                              "\nEigen: ", EIGEN_WORLD_VERSION, '.', EIGEN_MAJOR_VERSION, '.',
                              EIGEN_MINOR_VERSION, "\nCUDA: ", cuda_text());
}

}  // namespace pesc::tool
