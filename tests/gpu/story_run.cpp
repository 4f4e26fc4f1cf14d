// SPDX-License-Identifier: Apache-2.0
#include "gpu/story_run.hpp"

#include "pesc/pesc.hpp"

namespace support {

story tell_story_on_cpu(const std::string& data) {
  pesc::cpu_backend ctx(1);
  return tell_story(ctx, data);
}

}  // namespace support
