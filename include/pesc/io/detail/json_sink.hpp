// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace pesc::detail {

/// \brief What the JSON library tells of a text, in its order. A call that returns false ends the reading.
class json_sink {
 public:
  virtual bool null() = 0;
  virtual bool boolean(bool value) = 0;
  virtual bool integer(std::int64_t value) = 0;   ///< below zero
  virtual bool natural(std::uint64_t value) = 0;  ///< whole and not below zero
  virtual bool real(double value) = 0;
  virtual bool text(std::string& value) = 0;  ///< may be moved from
  virtual bool key(std::string& name) = 0;    ///< may be moved from
  virtual bool open(bool object) = 0;         ///< an object, or a list
  virtual bool close(bool object) = 0;

  /// \brief The text is not JSON.
  /// \param read    characters up to the one that is wrong, the end of the text counting as one
  /// \param reason  in the library's words
  virtual bool invalid(std::size_t read, std::string_view reason) = 0;

 protected:
  json_sink() = default;
  json_sink(const json_sink&) = default;
  json_sink& operator=(const json_sink&) = default;
  ~json_sink() = default;
};

/// \brief Reads a JSON text; whether it was read to its end.
/// \param seen  behind the last character that was looked at, for the calls of `to`
/// \tparam Sink  `json_sink`: a template, so that a unit can leave it to another
template <class Sink>
bool read_json_text(std::string_view text, const char*& seen, Sink& to);

}  // namespace pesc::detail

// Where PESC_COMPILED is defined, the one unit that includes pesc/io/instantiate.hpp compiles the library for all others.
#if defined(PESC_COMPILED)
namespace pesc::detail {
extern template bool read_json_text<json_sink>(std::string_view text, const char*& seen, json_sink& to);
}
#else
#include "pesc/io/detail/json_library.hpp"
#endif
