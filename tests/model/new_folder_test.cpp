// SPDX-License-Identifier: Apache-2.0
#include "pesc/model/new_folder.hpp"

#include <filesystem>
#include <string>

#include <doctest/doctest.h>

#include "support/message_of.hpp"
#include "support/temporary_folder.hpp"

namespace {

std::string refusal(const std::string& name) {
  return support::message_of([&] { const pesc::new_folder out(name); });
}

}  // namespace

TEST_SUITE("model/new_folder") {
  TEST_CASE("a folder appears with all its files when it is committed") {
    const support::temporary_folder t;
    pesc::new_folder out(t.path("a/b/"));
    CHECK(out.name() == t.path("a/b"));
    pesc::write_file(out.path() + "/x", std::string_view{"1"});
    CHECK_FALSE(std::filesystem::exists(t.path("a/b")));
    out.commit();
    CHECK(std::filesystem::exists(t.path("a/b/x")));
    CHECK(std::distance(std::filesystem::directory_iterator(t.path("a")), {}) == 1);
  }

  TEST_CASE("without a commit nothing is left") {
    const support::temporary_folder t;
    {
      const pesc::new_folder out(t.path("a"));
      pesc::write_file(out.path() + "/x", std::string_view{"1"});
      CHECK(t.entries() == 1);
    }
    CHECK(t.entries() == 0);
  }

  TEST_CASE("an empty folder may be there, any other is refused") {
    const support::temporary_folder t;
    std::filesystem::create_directory(t.path("empty"));
    pesc::new_folder out(t.path("empty"));
    pesc::write_file(out.path() + "/x", std::string_view{"1"});
    out.commit();
    CHECK(std::filesystem::exists(t.path("empty/x")));
    CHECK(support::contains(
        refusal(t.path("empty")),
        "empty: this folder is not empty, and nothing in it is overwritten. Name another."));
    t.write("file", "x");
    CHECK(support::contains(refusal(t.path("file")),
                            "file: this is a file, expected the name of a new folder"));
  }

  TEST_CASE("what stopped processes left of the same folder is removed") {
    const support::temporary_folder t;
    // No process has the largest number.
    std::filesystem::create_directory(t.path("a.2147483647.partial"));
    std::filesystem::create_directory(t.path("b.2147483647.partial"));
    t.write("a.2147483647.partial/x", "1");
    pesc::new_folder out(t.path("a"));
    out.commit();
    CHECK(std::filesystem::exists(t.path("a")));
    CHECK_FALSE(std::filesystem::exists(t.path("a.2147483647.partial")));
    CHECK(std::filesystem::exists(t.path("b.2147483647.partial")));
  }

  TEST_CASE("a folder that was filled in the meantime is left alone") {
    const support::temporary_folder t;
    pesc::new_folder out(t.path("a"));
    std::filesystem::create_directory(t.path("a"));
    t.write("a/x", "1");
    CHECK(support::contains(support::message_of([&] { out.commit(); }), "a: cannot be put in place: "));
  }
}
