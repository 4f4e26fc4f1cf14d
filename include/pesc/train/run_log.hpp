// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cerrno>
#include <charconv>
#include <cmath>
#include <concepts>
#include <cstdio>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pesc/core/error.hpp"
#include "pesc/core/types.hpp"
#include "pesc/train/line_reader.hpp"

namespace pesc {

/// \brief What a step computed; the same for every run with the same seed, data and options.
struct step_record {
  index_t step = 0;        ///< from 1
  index_t tokens = 0;      ///< trained so far, padding excluded
  index_t targets = 0;     ///< target tokens of this step
  double loss = 0.0;       ///< nats per target token
  double rate = 0.0;       ///< learning rate
  double grad_norm = 0.0;  ///< before clipping
  double balance = 0.0;    ///< balance loss, before its factor
  double z = 0.0;          ///< router z-loss, before its factor
  bool skipped = false;    ///< the update was left out because a number was not finite
  index_t experts = 0;
  std::span<const std::int32_t> load{};  ///< slots per layer and expert, row by row; may be empty
};

/// \brief What depends on the clock and the machine; kept apart so that logs of equal runs are equal.
struct step_timing {
  index_t step = 0;
  double seconds = 0.0;  ///< since the start of this run
  double tokens_per_second = 0.0;
  index_t memory_bytes = 0;  ///< resident memory of the process
};

namespace detail {

/// \brief Appends a JSON number; the shortest text that reads back to the same bits, null when not finite.
template <std::floating_point Number>
void append_json_number(std::string& out, Number value) {
  if (!std::isfinite(value)) {
    out += "null";
    return;
  }
  char text[32];
  const auto end = std::to_chars(text, text + sizeof text, value);
  out.append(text, end.ptr);
}

inline void append_json_number(std::string& out, index_t value) { out += std::to_string(value); }

/// \brief Step of a complete line of a log, or -1 for a line that was cut.
inline index_t logged_step(std::string_view line) {
  constexpr std::string_view head = "{\"step\":";
  if (!line.starts_with(head) || !line.ends_with('}')) return -1;
  index_t step = -1;
  const auto end = std::from_chars(line.data() + head.size(), line.data() + line.size(), step);
  return end.ec == std::errc{} && end.ptr != line.data() + line.size() ? step : -1;
}

/// \brief Copies the lines up to `last_step`, stopping at one that was cut, and puts the copy in the place of
/// the log.
inline void cut_log(const std::string& path, index_t last_step) {
  if (std::FILE* probe = std::fopen(path.c_str(), "rb"))
    std::fclose(probe);
  else
    return;
  const std::string copy = path + ".tmp";
  std::FILE* out = std::fopen(copy.c_str(), "wb");
  if (out == nullptr) raise<io_error>(concat(copy, ": cannot be written (", std::strerror(errno), ")"));
  bool good = true;
  {
    line_reader reader{path};
    while (good && reader.next()) {
      const index_t step = logged_step(reader.line());
      if (step < 0 || step > last_step) break;
      good = std::fwrite(reader.line().data(), 1, reader.line().size(), out) == reader.line().size() &&
             std::fputc('\n', out) != EOF;
    }
  }
  good = std::fclose(out) == 0 && good;
  good = good && std::rename(copy.c_str(), path.c_str()) == 0;
  if (!good) {
    const std::string why = std::strerror(errno);
    std::remove(copy.c_str());
    raise<io_error>(concat(path, ": cannot be written (", why, ")"));
  }
}

/// \brief File that lines are added to; every line is on its way to the disk when `add` returns.
class line_writer {
 public:
  explicit line_writer(std::string path) : path_{std::move(path)}, file_{std::fopen(path_.c_str(), "ab")} {
    if (file_ == nullptr) raise<io_error>(concat(path_, ": cannot be written (", std::strerror(errno), ")"));
  }
  ~line_writer() {
    if (file_ != nullptr) std::fclose(file_);
  }
  line_writer(line_writer&& other) noexcept
      : path_{std::move(other.path_)}, file_{std::exchange(other.file_, nullptr)} {}
  line_writer& operator=(line_writer&&) = delete;

  void add(std::string_view line) {
    if (std::fwrite(line.data(), 1, line.size(), file_) != line.size() || std::fflush(file_) != 0)
      raise<io_error>(concat(path_, ": cannot be written (", std::strerror(errno), ")"));
  }

 private:
  std::string path_;
  std::FILE* file_;
};

}  // namespace detail

/// \brief The line of `log.jsonl` for a step, with its line end.
[[nodiscard]] inline std::string to_json_line(const step_record& record) {
  std::string out;
  const auto number = [&](std::string_view key, auto value) {
    out += out.empty() ? "{\"" : ",\"";
    out += key;
    out += "\":";
    detail::append_json_number(out, value);
  };
  number("step", record.step);
  number("tokens", record.tokens);
  number("targets", record.targets);
  number("loss", record.loss);
  number("lr", record.rate);
  number("grad_norm", record.grad_norm);
  number("lb", record.balance);
  number("z", record.z);
  if (record.skipped) out += ",\"skipped\":true";
  if (!record.load.empty() && record.experts > 0) {
    out += ",\"experts\":[";
    for (std::size_t i = 0; i < record.load.size(); ++i) {
      const bool begin = i % static_cast<std::size_t>(record.experts) == 0;
      out += begin ? (i == 0 ? "[" : "],[") : ",";
      detail::append_json_number(out, record.load[i]);
    }
    out += "]]";
  }
  out += "}\n";
  return out;
}

/// \brief The line of `timing.jsonl` for a step, with its line end.
[[nodiscard]] inline std::string to_json_line(const step_timing& timing) {
  std::string out = "{\"step\":";
  detail::append_json_number(out, timing.step);
  out += ",\"seconds\":";
  detail::append_json_number(out, timing.seconds);
  out += ",\"tokens_per_second\":";
  detail::append_json_number(out, timing.tokens_per_second);
  out += ",\"memory_bytes\":";
  detail::append_json_number(out, timing.memory_bytes);
  out += "}\n";
  return out;
}

/// \brief The two logs of a run: `log.jsonl` and `timing.jsonl` in its folder.
class run_log {
 public:
  /// \brief Opens the logs; lines after `last_step` are dropped, so that a resumed run writes each step once.
  /// \param last_step  step of the checkpoint that the run goes on from, 0 for a new run
  /// \throws io_error when the folder cannot be written to
  explicit run_log(const std::string& folder, index_t last_step = 0)
      : log_{prepared(folder + "/log.jsonl", last_step)},
        timing_{prepared(folder + "/timing.jsonl", last_step)} {}

  void add(const step_record& record) { log_.add(to_json_line(record)); }
  void add(const step_timing& timing) { timing_.add(to_json_line(timing)); }

 private:
  static std::string prepared(std::string path, index_t last_step) {
    detail::cut_log(path, last_step);
    return path;
  }

  detail::line_writer log_;
  detail::line_writer timing_;
};

}  // namespace pesc
