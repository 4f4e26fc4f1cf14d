// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "pesc/cpu/context.hpp"

namespace golden {

/// \brief Calls `f(context, name)` for every instruction set of this processor.
template <class X = pesc::cpu_backend, class F>
void for_each_isa(F&& f) {
  for (int level = 0; level <= static_cast<int>(pesc::cpu::detect_isa()); ++level) {
    const auto isa = static_cast<pesc::cpu::isa>(level);
    X ctx(2, pesc::cpu::runtime_isa{isa});
    f(ctx, std::string(" ") + pesc::cpu::name_of(isa));
  }
}

}  // namespace golden
