// SPDX-License-Identifier: Apache-2.0
#include "pesc/io/file.hpp"

#include <csignal>
#include <filesystem>
#include <string>

#include <doctest/doctest.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "pesc/io/file_kind.hpp"
#include "support/message_of.hpp"
#include "support/temporary_folder.hpp"

using support::contains;
using support::message_of;

namespace {

std::string text_of(const std::string& path) { return std::string{pesc::as_text(pesc::read_file(path))}; }

}  // namespace

TEST_SUITE("io/file") {
  TEST_CASE("a file comes back byte for byte") {
    const support::temporary_folder folder;
    const std::string bytes("a\0b\r\n\xFF", 6);
    CHECK(text_of(folder.write("x", bytes)) == bytes);
    CHECK(text_of(folder.write("empty", "")).empty());
  }

  TEST_CASE("reading says what is in the way") {
    const support::temporary_folder folder;
    const auto reading = [](const std::string& path) {
      return message_of<pesc::io_error>([&] { static_cast<void>(pesc::read_file(path)); });
    };
    CHECK(reading(folder.path("none")) == folder.path("none") + ": there is no such file");
    CHECK(reading(folder.path()) == folder.path() + ": this is a folder, expected a file");
    CHECK(reading("/dev/null") == "/dev/null: this is not a regular file");
    const std::string file = folder.write("x", "12345");
    CHECK(contains(reading(file + "/y"), "cannot be opened"));
    CHECK(contains(message_of([&] { static_cast<void>(pesc::read_file(file, 4)); }),
                   "the file has 5 bytes, at most 4 are read"));
    if (::geteuid() != 0) {
      std::filesystem::permissions(file, std::filesystem::perms::none);
      CHECK(reading(file) == file + ": no permission to read this file");
    }
  }

  TEST_CASE("a file that is cut while it is read is an error, not a wait") {
    const support::temporary_folder folder;
    const auto opened = pesc::detail::open_to_read(folder.write("x", "12345"));
    std::vector<std::byte> more(9);
    CHECK(contains(
        message_of<pesc::io_error>([&] { pesc::detail::read_exactly(opened.first.get(), more, "x"); }),
        "x: the file ended at byte 5, expected 9 bytes"));
  }

  TEST_CASE("a new file appears on commit only, and replaces the old one") {
    const support::temporary_folder folder;
    const std::string path = folder.write("x", "old");
    {
      pesc::atomic_file file{path};
      file.write("new and ");
      CHECK(text_of(path) == "old");
      file.write("longer");
      CHECK(file.bytes_written() == 14);
      file.commit();
    }
    CHECK(text_of(path) == "new and longer");
    CHECK(folder.entries() == 1);
    {
      pesc::atomic_file file{path};
      file.write("never");
      CHECK(folder.entries() == 2);
    }
    CHECK(text_of(path) == "new and longer");
    CHECK(folder.entries() == 1);
  }

  TEST_CASE("two writers of one file do not disturb each other") {
    const support::temporary_folder folder;
    pesc::atomic_file a{folder.path("x")};
    pesc::atomic_file b{folder.path("x")};
    a.write("aaaa");
    b.write("bb");
    a.commit();
    CHECK(text_of(folder.path("x")) == "aaaa");
    b.commit();
    CHECK(text_of(folder.path("x")) == "bb");
  }

  TEST_CASE("writing says what is in the way") {
    const support::temporary_folder folder;
    CHECK(contains(message_of<pesc::io_error>([&] { pesc::write_file(folder.path("no/x"), "1"); }),
                   "x: cannot be written: there is no folder " + folder.path("no")));
    std::filesystem::create_directory(folder.path("d"));
    CHECK(contains(message_of<pesc::io_error>([&] { pesc::write_file(folder.path("d"), "1"); }),
                   "d: cannot be replaced"));
    CHECK(folder.entries() == 1);
  }

  TEST_CASE("a file-size limit ends a write with the numbers and leaves the old file") {
    const support::temporary_folder folder;
    const std::string path = folder.write("x", "old");
    // In a process of its own: the limit and the ignored signal must not reach other tests.
    const pid_t child = ::fork();
    if (child == 0) {
      std::signal(SIGXFSZ, SIG_IGN);
      const rlimit limit{1000, 1000};
      ::setrlimit(RLIMIT_FSIZE, &limit);
      const std::string message =
          message_of<pesc::io_error>([&] { pesc::write_file(path, std::string(1500, 'x')); });
      const bool good =
          message == path +
                         ": cannot be written: File too large after 1000 bytes, 500 more to write. "
                         "An older file of this name is unchanged.";
      ::_exit(good ? 0 : 1);
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 0);
    CHECK(text_of(path) == "old");
    CHECK(folder.entries() == 1);
  }
}
