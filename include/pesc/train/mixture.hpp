// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pesc/core/error.hpp"
#include "pesc/core/random.hpp"
#include "pesc/core/types.hpp"

namespace pesc {

/// \brief A data file and its share in the mixture.
struct weighted_path {
  std::string path;
  double weight = 1.0;
};

namespace detail {

/// \brief Reads a plain decimal number; false when the text is none. Independent of the locale.
inline bool parse_weight(std::string_view text, double& value) {
  double number = 0.0;
  double scale = 1.0;
  bool digits = false;
  bool point = false;
  if (text.size() > 18) return false;
  for (const char c : text) {
    if (c == '.' && !point) {
      point = true;
    } else if (c >= '0' && c <= '9') {
      digits = true;
      number = number * 10.0 + (c - '0');
      if (point) scale *= 10.0;
    } else {
      return false;
    }
  }
  value = number / scale;
  return digits;
}

}  // namespace detail

/// \brief Takes `FILE:WEIGHT` apart; without a weight it is 1. A colon in front of anything but a number is
/// part of the file name.
/// \throws shape_error for a weight that is not above 0 and below 1e9
[[nodiscard]] inline weighted_path parse_weighted_path(std::string_view text) {
  const std::size_t colon = text.rfind(':');
  const std::string_view tail = colon == std::string_view::npos ? std::string_view{} : text.substr(colon + 1);
  double weight = 1.0;
  const bool number = detail::parse_weight(tail, weight);
  const bool meant =
      number || tail == "nan" || tail == "inf" ||
      (!tail.empty() && std::string_view{"+-.0123456789"}.find(tail[0]) != std::string_view::npos &&
       tail.find('/') == std::string_view::npos);
  PESC_EXPECTS(!meant || (number && weight > 0.0 && weight < 1e9), "data set ", text, ": weight is ", tail,
               ", expected a number above 0 and below 1e9");
  PESC_EXPECTS(colon != 0 && !text.empty(), "data set \"", text, "\" has no file name");
  return {std::string{meant ? text.substr(0, colon) : text}, meant ? weight : 1.0};
}

/// \brief A data set of a mixture: how many records it has and how often it is drawn from, relative to the
/// others.
struct mixture_source {
  index_t records = 0;
  double weight = 1.0;
};

/// \brief Where a mixture stands; with the sources and the seed it says everything.
struct mixture_state {
  std::uint64_t draws = 0;
  std::vector<std::uint64_t> taken;  ///< records drawn of each source so far

  friend bool operator==(const mixture_state&, const mixture_state&) = default;
};

/// \brief Endless stream of records out of several data sets, the same for the same seed wherever it is taken
/// up.
///
/// A data set is chosen for each record with a chance in proportion to its weight; within one, every record
/// comes once before any comes again, in an order that is shuffled anew each time.
class mixture {
 public:
  struct pick {
    index_t source = 0;
    index_t record = 0;
    friend bool operator==(pick, pick) = default;
  };

  /// \throws shape_error without a source, for an empty one, or for a weight that is not finite and positive
  mixture(std::vector<mixture_source> sources, std::uint64_t seed)
      : sources_{std::move(sources)}, seed_{seed} {
    PESC_EXPECTS(!sources_.empty() && sources_.size() < 65536, "mixture of ", sources_.size(),
                 " data sets, expected 1 to 65535");
    double sum = 0.0;
    for (const mixture_source& source : sources_) {
      PESC_EXPECTS(source.records >= 1 && source.records < index_t{1} << 32, "data set of ", source.records,
                   " records, expected 1 to 4294967295");
      PESC_EXPECTS(std::isfinite(source.weight) && source.weight > 0, "data-set weight is ", source.weight,
                   ", expected a finite number above 0");
      sum += source.weight;
    }
    double below = 0.0;
    for (const mixture_source& source : sources_) {
      below += source.weight / sum;
      limits_.push_back(below);
      orders_.emplace_back(static_cast<std::size_t>(source.records));
    }
    state_.taken.assign(sources_.size(), 0);
    for (std::size_t i = 0; i < sources_.size(); ++i) shuffle(i, 0);
  }

  [[nodiscard]] pick next() {
    const std::size_t source = choose(state_.draws++);
    const std::uint64_t taken = state_.taken[source]++;
    const std::uint64_t records = orders_[source].size();
    if (taken != 0 && taken % records == 0) shuffle(source, taken / records);
    return {static_cast<index_t>(source), static_cast<index_t>(orders_[source][taken % records])};
  }

  [[nodiscard]] const mixture_state& state() const { return state_; }

  /// \brief Goes on where `state()` was read.
  /// \throws shape_error when the state belongs to another number of data sets
  void restore(const mixture_state& state) {
    PESC_EXPECTS(state.taken.size() == sources_.size(), "saved data order has ", state.taken.size(),
                 " data sets, this run has ", sources_.size());
    state_ = state;
    for (std::size_t i = 0; i < sources_.size(); ++i) {
      const std::uint64_t taken = state_.taken[i];
      // At a boundary the next draw makes the new order itself.
      shuffle(i, taken == 0 ? 0 : (taken - 1) / orders_[i].size());
    }
  }

  [[nodiscard]] index_t sources() const { return static_cast<index_t>(sources_.size()); }

  /// \brief Chance of a source, 0 to 1.
  [[nodiscard]] double share(index_t source) const {
    const auto i = static_cast<std::size_t>(source);
    return i == 0 ? limits_[0] : limits_[i] - limits_[i - 1];
  }

 private:
  /// \brief Stream parts: the order within a data set, and the choice of a data set.
  static constexpr std::uint8_t order_part = 0;
  static constexpr std::uint8_t choice_part = 1;

  [[nodiscard]] std::size_t choose(std::uint64_t draw) const {
    const random_stream stream{seed_, static_cast<std::uint32_t>(draw >> 32), 0, random_site::data_order,
                               choice_part};
    const auto words = stream.words(static_cast<std::uint32_t>(draw), 0);
    const std::uint64_t bits = (std::uint64_t{words[0]} << 32 | words[1]) >> 11;
    const double unit = static_cast<double>(bits) * 0x1p-53;
    std::size_t source = 0;
    while (source + 1 < limits_.size() && unit >= limits_[source]) ++source;
    return source;
  }

  /// \brief Fisher-Yates with one counter per exchange.
  void shuffle(std::size_t source, std::uint64_t round) {
    std::vector<std::uint32_t>& order = orders_[source];
    const std::uint32_t records = static_cast<std::uint32_t>(order.size());
    for (std::uint32_t i = 0; i < records; ++i) order[i] = i;
    const random_stream stream{seed_, static_cast<std::uint32_t>(round), static_cast<std::uint16_t>(source),
                               random_site::data_order, order_part};
    for (std::uint32_t i = records; i-- > 1;) {
      const auto words = stream.words(i, 0);
      // The upper part of a 64-bit fraction times (i + 1): uniform on 0 to i up to 2^-32.
      const std::uint64_t limit = std::uint64_t{i} + 1;
      const std::uint64_t j = (words[0] * limit + (words[1] * limit >> 32)) >> 32;
      std::swap(order[i], order[j]);
    }
  }

  std::vector<mixture_source> sources_;
  std::uint64_t seed_ = 0;
  std::vector<double> limits_;
  std::vector<std::vector<std::uint32_t>> orders_;
  mixture_state state_;
};

}  // namespace pesc
