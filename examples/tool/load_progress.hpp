// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <string>
#include <utility>

#include "pesc/train/progress.hpp"

namespace pesc::tool {

/// \brief Tells on stderr how far a load is once it has taken a second: one line, rewritten on a terminal.
class load_progress {
 public:
  load_progress(std::string name, bool quiet)
      : name_{std::move(name)}, options_{progress_options_for(stderr)}, quiet_{quiet} {}
  load_progress(const load_progress&) = delete;
  load_progress& operator=(const load_progress&) = delete;
  ~load_progress() {
    if (open_) std::fputc('\n', stderr);
  }

  void update(index_t layers, index_t of) {
    const double now = std::chrono::duration<double>(clock::now() - begin_).count();
    if (quiet_ || now < next_) return;
    next_ = now + (options_.rewrite ? 0.2 : options_.interval);
    open_ = options_.rewrite;
    std::fprintf(stderr, "%spesc: loading %s: layer %lld of %lld%s", open_ ? "\r" : "", name_.c_str(),
                 static_cast<long long>(layers), static_cast<long long>(of), open_ ? "\033[K" : "\n");
    std::fflush(stderr);
  }

 private:
  using clock = std::chrono::steady_clock;
  std::string name_;
  progress_options options_;
  bool quiet_;
  clock::time_point begin_ = clock::now();
  double next_ = 1.0;
  bool open_ = false;
};

}  // namespace pesc::tool
