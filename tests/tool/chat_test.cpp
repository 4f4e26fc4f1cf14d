// SPDX-License-Identifier: Apache-2.0
#include <csignal>

#include <doctest/doctest.h>
#include <unistd.h>

#include "pesc/text/detail/chat_jinja.hpp"
#include "tool/program.hpp"
#include "tool/story_gguf.hpp"

using support::bundled;
using support::pesc_program;
using support::story_gguf;

namespace {

/// \brief The template that Llama 2 models bring.
std::string llama2() {
  for (const auto& known : pesc::detail::known_jinjas)
    if (known.name == "llama2") return std::string{known.text};
  return {};
}

support::outcome talk(const std::string& model, const std::string& input,
                      std::vector<std::string> options = {}) {
  std::vector<std::string> arguments{"chat", "--model", model, "--temperature", "0", "--max-tokens", "12"};
  arguments.insert(arguments.end(), options.begin(), options.end());
  return pesc_program(arguments, "", input);
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> out;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    out.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return out;
}

/// \brief A program that runs beside the test, with pipes to and from it.
class running_program {
 public:
  explicit running_program(std::vector<std::string> arguments) {
    int in[2], out[2];
    if (::pipe(in) != 0 || ::pipe(out) != 0) std::abort();
    child_ = ::fork();
    if (child_ == 0) {
      ::alarm(120);
      ::dup2(in[0], STDIN_FILENO);
      ::dup2(out[1], STDOUT_FILENO);
      for (const int fd : {in[0], in[1], out[0], out[1]}) ::close(fd);
      arguments.insert(arguments.begin(), std::string{PESC_PROGRAM_DIR} + "/pesc");
      std::vector<char*> words;
      for (std::string& word : arguments) words.push_back(word.data());
      words.push_back(nullptr);
      ::execv(words[0], words.data());
      ::_exit(127);
    }
    ::close(in[0]);
    ::close(out[1]);
    to_ = in[1];
    from_ = out[0];
  }
  running_program(const running_program&) = delete;
  running_program& operator=(const running_program&) = delete;
  ~running_program() {
    if (child_ > 0) ::kill(child_, SIGKILL);
    static_cast<void>(end());
    ::close(from_);
  }

  void say(const std::string& text) const {
    if (::write(to_, text.data(), text.size()) != static_cast<ssize_t>(text.size())) std::abort();
  }
  void interrupt() const { ::kill(child_, SIGINT); }

  /// \brief Reads until the text appears; false at the end of the output.
  [[nodiscard]] bool wait_for(const std::string& text) {
    while (heard_.find(text) == heard_.npos) {
      char bytes[512];
      const ssize_t count = ::read(from_, bytes, sizeof bytes);
      if (count <= 0) return false;
      heard_.append(bytes, static_cast<std::size_t>(count));
    }
    heard_.erase(0, heard_.find(text) + text.size());
    return true;
  }

  /// \brief Closes its input and waits for its end; the exit status, -1 after a signal.
  [[nodiscard]] int end() {
    if (child_ <= 0) return -1;
    ::close(to_);
    int status = 0;
    ::waitpid(std::exchange(child_, 0), &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

 private:
  pid_t child_ = 0;
  int to_ = -1, from_ = -1;
  std::string heard_;
};

}  // namespace

TEST_SUITE("tool/chat") {
  TEST_CASE("an answer for each line, with what was said before, until it is cleared") {
    const support::temporary_folder folder;
    const std::string model = story_gguf(folder, {.chat_template = llama2()});
    const auto result = talk(model, "Tell a story\nTell a story\n\n/clear\nTell a story\r\n/quit\nnever\n");
    CHECK(result.status == 0);
    CHECK(result.err.empty());
    const auto answers = lines_of(result.out);
    REQUIRE(answers.size() == 3);
    CHECK_FALSE(answers[0].empty());
    CHECK(answers[0] != answers[1]);
    CHECK(answers[0] == answers[2]);
    // The last line of an input without a line end is a question too.
    CHECK(talk(model, "Tell a story").out == answers[0] + "\n");
    CHECK(talk(model, "").out.empty());
  }

  TEST_CASE("a first message about how to answer is heard") {
    const support::temporary_folder folder;
    const std::string model = story_gguf(folder, {.chat_template = llama2()});
    const auto result = talk(model, "Tell a story\n/clear\nTell a story\n", {"--system", "Talk about Tom."});
    const auto answers = lines_of(result.out);
    REQUIRE(answers.size() == 2);
    CHECK(answers[0] == answers[1]);
    CHECK(answers[0] != lines_of(talk(model, "Tell a story\n").out).at(0));
  }

  TEST_CASE("the chat template is the file's, or one that is named, or the list of the known ones is told") {
    const support::temporary_folder folder;
    const auto none = talk(bundled("stories260K.bin"), "Hello\n");
    CHECK(none.status == 1);
    CHECK(none.says("the model brings no chat template. Name one: --template chatml, smollm2, llama2"));
    CHECK(none.error_lines() == 1);
    CHECK(talk(bundled("stories260K.bin"), "Hello\n", {"--template", "plain"}).status == 0);
    CHECK(talk(bundled("stories260K.bin"), "Hello\n", {"--template", "alpaca"}).status == 0);
    const std::string model = story_gguf(folder, {.chat_template = "{{ messages }}"});
    const auto unknown = talk(model, "Hello\n");
    CHECK(unknown.status == 1);
    CHECK(unknown.says("unknown chat template"));
    CHECK(talk(model, "Hello\n", {"--template", "llama2"}).status == 0);
    const auto marks = talk(model, "Hello\n", {"--template", "chatml"});
    CHECK(marks.status == 1);
    CHECK(marks.says("<|im_start|>"));
    CHECK(talk(model, "", {"--template", "jinja"}).status == 2);
  }

  TEST_CASE("a conversation that has no room left says so and goes on") {
    const support::temporary_folder folder;
    const std::string model = story_gguf(folder, {.chat_template = llama2()});
    const std::string question(200, 'x');
    const auto result = talk(model, question + "\nHi\n", {"--context", "64"});
    CHECK(result.status == 0);
    CHECK(result.says("64 are kept (--context). /clear begins a new one"));
    CHECK(lines_of(result.out).size() == 1);
  }

  TEST_CASE("Ctrl-C stops the answer, not the program") {
    const support::temporary_folder folder;
    // Without a mark that ends a text the model goes on for minutes.
    const std::string model = story_gguf(folder, {.end_mark = false, .context_length = 100000});
    running_program chat(
        {"chat", "--model", model, "--template", "plain", "--context", "100000", "--max-tokens", "90000"});
    for (int turn = 0; turn < 2; ++turn) {
      chat.say("Once upon a time\n");
      REQUIRE(chat.wait_for(" "));
      chat.interrupt();
      REQUIRE(chat.wait_for(" [stopped]\n"));
    }
    chat.say("/quit\n");
    CHECK(chat.end() == 0);
  }
}
