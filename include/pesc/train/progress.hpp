// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>

#if defined(__unix__) || defined(__APPLE__)
#include <sys/ioctl.h>
#include <unistd.h>
#endif

#include "pesc/core/types.hpp"

namespace pesc {

/// \brief What the progress line shows.
struct progress_values {
  index_t step = 0;
  index_t total = 0;
  double loss = 0.0;
  double smooth_loss = 0.0;
  double tokens_per_second = 0.0;  ///< 0 = not known yet
  double balance = 0.0;            ///< 0 = the model has no router
  double seconds_left = -1.0;      ///< negative = not known yet
};

/// \brief A duration in two units at most: `14m`, `3h05m`, `42s`.
[[nodiscard]] inline std::string short_duration(double seconds) {
  const auto whole = static_cast<long long>(std::ceil(std::fmin(std::fmax(seconds, 0.0), 3.6e8)));
  char text[32];
  if (whole < 60)
    std::snprintf(text, sizeof text, "%llds", whole);
  else if (whole < 3600)
    std::snprintf(text, sizeof text, "%lldm", (whole + 59) / 60);
  else
    std::snprintf(text, sizeof text, "%lldh%02lldm", whole / 3600, whole % 3600 / 60);
  return text;
}

/// \brief The line `step 120/2000  loss 1.842 (ema 1.91)  412 tok/s  lb 1.03  eta 14m`, cut to `width`
/// characters.
///
/// Parts that do not fit are left out whole, from the right.
[[nodiscard]] inline std::string format_progress(const progress_values& values, index_t width) {
  std::array<std::string, 5> parts;
  char text[96];
  std::snprintf(text, sizeof text, "step %lld/%lld", static_cast<long long>(values.step),
                static_cast<long long>(values.total));
  parts[0] = text;
  std::snprintf(text, sizeof text, "loss %.3f (ema %.2f)", values.loss, values.smooth_loss);
  parts[1] = text;
  std::snprintf(text, sizeof text, values.tokens_per_second < 10 ? "%.1f tok/s" : "%.0f tok/s",
                values.tokens_per_second);
  if (values.tokens_per_second > 0) parts[2] = text;
  std::snprintf(text, sizeof text, "lb %.2f", values.balance);
  if (values.balance > 0) parts[3] = text;
  if (values.seconds_left >= 0) parts[4] = "eta " + short_duration(values.seconds_left);
  std::string line;
  for (const std::string& part : parts) {
    if (part.empty()) continue;
    const std::string_view gap = line.empty() ? "" : "  ";
    if (static_cast<index_t>(line.size() + gap.size() + part.size()) > width) break;
    line += gap;
    line += part;
  }
  if (line.empty()) line = parts[0].substr(0, static_cast<std::size_t>(width < 0 ? 0 : width));
  return line;
}

/// \brief Things per second, such as tokens, over the last 20 seconds.
class speed_meter {
 public:
  /// \brief Notes that `things` more were done at `seconds`; the first call starts the clock and counts
  /// nothing.
  void add(double seconds, index_t things) {
    total_ += count_ == 0 ? 0 : things;
    const std::size_t last = (count_ + capacity - 1) % capacity;
    // Samples closer than a slot replace one another, so the ring always reaches over the window.
    if (count_ > 1 &&
        seconds - marks_[(count_ + capacity - 2) % capacity].seconds < window / (capacity - 2)) {
      marks_[last] = {seconds, total_};
      return;
    }
    marks_[count_++ % capacity] = {seconds, total_};
  }

  /// \brief 0 until two moments are known.
  [[nodiscard]] double per_second() const {
    if (count_ < 2) return 0.0;
    const mark newest = marks_[(count_ - 1) % capacity];
    const std::size_t first = count_ > capacity ? count_ - capacity : 0;
    mark oldest = marks_[first % capacity];
    for (std::size_t i = first; i + 1 < count_; ++i) {
      oldest = marks_[i % capacity];
      if (newest.seconds - oldest.seconds <= window) break;
    }
    const double seconds = newest.seconds - oldest.seconds;
    return seconds > 0 ? static_cast<double>(newest.total - oldest.total) / seconds : 0.0;
  }

 private:
  static constexpr double window = 20.0;
  static constexpr std::size_t capacity = 66;
  struct mark {
    double seconds = 0.0;
    index_t total = 0;
  };
  std::array<mark, capacity> marks_{};
  std::size_t count_ = 0;
  index_t total_ = 0;
};

/// \brief How and where the progress is shown.
struct progress_options {
  std::FILE* out = stderr;
  bool rewrite = false;  ///< rewrite one line in place (terminals only)
  bool color = false;
  index_t width = 80;      ///< characters of a line
  double interval = 10.0;  ///< seconds between lines where they are not rewritten
  bool quiet = false;
};

/// \brief Options for `out`: rewriting and colour on a terminal that can do it, its width, NO_COLOR obeyed.
[[nodiscard]] inline progress_options progress_options_for(std::FILE* out) {
  progress_options options;
  options.out = out;
#if defined(__unix__) || defined(__APPLE__)
  const char* term = std::getenv("TERM");
  const bool able = term != nullptr && std::string_view{term} != "dumb";
  options.rewrite = isatty(fileno(out)) != 0 && able;
  if (options.rewrite) {
    const char* no_color = std::getenv("NO_COLOR");
    options.color = no_color == nullptr || *no_color == '\0';
    struct winsize size {};
    if (ioctl(fileno(out), TIOCGWINSZ, &size) == 0 && size.ws_col > 0) options.width = size.ws_col;
  }
#endif
  return options;
}

/// \brief Shows how far a run is: one line, rewritten on a terminal, repeated at intervals elsewhere.
class progress {
 public:
  explicit progress(const progress_options& options) : options_{options}, begin_{clock::now()} {}
  progress(const progress&) = delete;
  progress& operator=(const progress&) = delete;
  ~progress() { finish(); }

  /// \brief Shows a finished step.
  /// \param tokens  tokens of this step, padding excluded
  void update(index_t step, index_t total, double loss, index_t tokens, double balance) {
    update_at(seconds(), step, total, loss, tokens, balance);
  }

  /// \brief The same at a moment given by the caller, in seconds since any fixed one.
  void update_at(double now, index_t step, index_t total, double loss, index_t tokens, double balance) {
    if (std::isfinite(loss)) {
      smooth_ = smoothing_ ? 0.95 * smooth_ + 0.05 * loss : loss;
      smoothing_ = true;
    }
    const bool begun = std::exchange(begun_, true);
    tokens_.add(now, tokens);
    steps_.add(now, 1);
    if (options_.quiet) return;
    const bool last = step >= total;
    if (!options_.rewrite && !last && begun && now - shown_ < options_.interval) return;
    shown_ = now;
    progress_values values{step, total, loss, smooth_, tokens_.per_second(), balance, -1.0};
    const double speed = steps_.per_second();
    if (speed > 0) values.seconds_left = static_cast<double>(total - step) / speed;
    show(values);
  }

  /// \brief Leaves the line as it is and goes to the next; other text can be written after it.
  void finish() {
    if (open_) std::fputc('\n', options_.out);
    open_ = false;
    std::fflush(options_.out);
  }

  [[nodiscard]] double tokens_per_second() const { return tokens_.per_second(); }
  [[nodiscard]] double smooth_loss() const { return smooth_; }

  /// \brief Seconds since this object was made.
  [[nodiscard]] double seconds() const {
    return std::chrono::duration<double>(clock::now() - begin_).count();
  }

 private:
  using clock = std::chrono::steady_clock;

  void show(const progress_values& values) {
    // A line as wide as the terminal would wrap in some of them.
    const std::string line = format_progress(values, options_.rewrite ? options_.width - 1 : options_.width);
    if (!options_.rewrite) {
      std::fprintf(options_.out, "%s\n", line.c_str());
    } else if (options_.color) {
      const std::size_t head = line.find("  ");
      const std::string rest = head == std::string::npos ? "" : line.substr(head);
      std::fprintf(options_.out, "\r\033[1m%s\033[0m%s\033[K", line.substr(0, head).c_str(), rest.c_str());
      open_ = true;
    } else {
      std::fprintf(options_.out, "\r%s\033[K", line.c_str());
      open_ = true;
    }
    std::fflush(options_.out);
  }

  progress_options options_;
  clock::time_point begin_;
  speed_meter tokens_;
  speed_meter steps_;
  bool begun_ = false;
  bool smoothing_ = false;
  double shown_ = 0.0;
  double smooth_ = 0.0;
  bool open_ = false;
};

}  // namespace pesc
