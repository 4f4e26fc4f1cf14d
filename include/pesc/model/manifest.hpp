// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "pesc/io/checksum.hpp"
#include "pesc/io/hf_directory.hpp"
#include "pesc/io/json.hpp"

namespace pesc {

/// \brief The list of the files of a checkpoint with sizes and checksums; written last, so it tells that all
/// are there.
struct checkpoint_manifest {
  static constexpr const char* file_name = "manifest.json";
  static constexpr index_t version = 1;

  struct entry {
    std::string name;
    file_checksum content;
    friend bool operator==(const entry&, const entry&) = default;
  };

  index_t sequence = 0;  ///< counts the saves into one folder: of two complete states the larger is the newer
  index_t step = 0;      ///< training steps done
  std::vector<entry> files;  ///< sorted by name

  [[nodiscard]] const entry* find(std::string_view name) const {
    const auto at = std::lower_bound(files.begin(), files.end(), name,
                                     [](const entry& e, std::string_view n) { return e.name < n; });
    return at != files.end() && at->name == name ? &*at : nullptr;
  }

  friend bool operator==(const checkpoint_manifest&, const checkpoint_manifest&) = default;
};

namespace detail {

inline std::uint64_t parse_checksum(const json_fields& f) {
  const std::string text = f.get_string("xxh64");
  std::uint64_t value = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
  if (text.size() != 16 || code != std::errc{} || end != text.data() + 16 || checksum_text(value) != text)
    raise<format_error>(
        concat(f.where("xxh64"), " is ", in_quotes(text), ", expected 16 hexadecimal digits"));
  return value;
}

inline index_t parse_count(const json_fields& f, std::string_view key) {
  const index_t value = f.get_int(key);
  if (value < 0) raise<format_error>(concat(f.where(key), " is ", value, ", expected 0 or more"));
  return value;
}

}  // namespace detail

/// \param file  name for messages
/// \throws format_error
[[nodiscard]] inline checkpoint_manifest parse_manifest(std::string_view text, const std::string& file) {
  const json value = parse_json(text, file, {8, 1 << 20, 1 << 16});
  const json_fields f{value, file};
  if (f.get_string("format") != "pesc checkpoint")
    detail::raise<format_error>(detail::concat(f.where("format"), " is ", in_quotes(f.get_string("format")),
                                               ", expected \"pesc checkpoint\""));
  const index_t version = f.get_int("version");
  if (version < 1 || version > checkpoint_manifest::version)
    detail::raise<format_error>(detail::concat(f.where("version"), " is ", version, ", expected 1 to ",
                                               checkpoint_manifest::version, ". A newer program wrote it."));
  checkpoint_manifest out{detail::parse_count(f, "sequence"), detail::parse_count(f, "step"), {}};
  static_cast<void>(f.get_object("files"));
  for (const auto& [name, entry] : f.find("files")->members()) {
    if (!detail::is_plain_name(name) || name == checkpoint_manifest::file_name)
      detail::raise<format_error>(detail::concat(f.where("files"), " holds ", in_quotes(name),
                                                 ", expected names of files in this folder"));
    const json_fields fields{entry, file, "files." + name + '.'};
    out.files.push_back({name, {detail::parse_count(fields, "bytes"), detail::parse_checksum(fields)}});
  }
  std::sort(out.files.begin(), out.files.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  return out;
}

[[nodiscard]] inline json to_json(const checkpoint_manifest& manifest) {
  json files = json::object();
  for (const auto& [name, content] : manifest.files) {
    json entry = json::object();
    entry.set("bytes", content.bytes).set("xxh64", checksum_text(content.value));
    files.set(name, std::move(entry));
  }
  json out = json::object();
  out.set("format", "pesc checkpoint")
      .set("version", checkpoint_manifest::version)
      .set("sequence", manifest.sequence)
      .set("step", manifest.step)
      .set("files", std::move(files));
  return out;
}

/// \brief What one look at a folder's manifest tells.
struct manifest_reading {
  std::optional<checkpoint_manifest> manifest;
  std::string problem;  ///< why there is none: missing, or not readable
};

/// \brief The manifest of a folder; a damaged one is a problem to report, not an error.
[[nodiscard]] inline manifest_reading read_manifest(const std::string& folder) {
  const std::string file = folder + '/' + checkpoint_manifest::file_name;
  if (!detail::exists(file)) return {{}, folder + " is incomplete (no manifest)"};
#if PESC_HAS_EXCEPTIONS
  try {
    return {parse_manifest(as_text(read_file(file, 1 << 20)), file), {}};
  } catch (const error& e) {
    return {{}, e.what()};
  }
#else
  return {parse_manifest(as_text(read_file(file, 1 << 20)), file), {}};
#endif
}

/// \brief Compares the files of a folder with its manifest; empty when all agree, else what is wrong with the
/// first.
/// \param checksums  read all files; otherwise only sizes are compared
/// \throws io_error when a file cannot be read
[[nodiscard]] inline std::string manifest_problem(const std::string& folder,
                                                  const checkpoint_manifest& manifest,
                                                  bool checksums = true) {
  for (const auto& [name, content] : manifest.files) {
    const std::string path = folder + '/' + name;
    struct stat status {};
    if (::stat(path.c_str(), &status) != 0 || !S_ISREG(status.st_mode))
      return path + ": the file is missing, its manifest lists it";
    if (static_cast<index_t>(status.st_size) != content.bytes)
      return detail::concat(path, ": the file has ", static_cast<index_t>(status.st_size),
                            " bytes, its manifest says ", content.bytes);
    if (!checksums) continue;
    const file_checksum found = checksum_file(path);
    if (found != content)
      return detail::concat(path, ": checksum ", checksum_text(found.value), " differs from the manifest's ",
                            checksum_text(content.value), ". The file was changed or is damaged.");
  }
  return {};
}

/// \brief Checks that a folder is a complete, undamaged checkpoint.
/// \throws format_error, io_error
inline checkpoint_manifest verify_manifest(const std::string& folder) {
  manifest_reading reading = read_manifest(folder);
  if (!reading.manifest) detail::raise<format_error>(reading.problem);
  const std::string problem = manifest_problem(folder, *reading.manifest);
  if (!problem.empty()) detail::raise<format_error>(problem);
  return std::move(*reading.manifest);
}

}  // namespace pesc
