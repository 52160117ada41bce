#pragma once
// What the programs write: the standard output, which is checked, progress, and files.
#include <samba/core/build_info.hpp>
#include <samba/io/file_writer.hpp>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <span>
#include <string>
#include <string_view>

/// Throws where what was printed cannot be written: to a full disk, for example.
inline void check_printed() {
  if (std::fflush(stdout) != 0 || std::ferror(stdout))
    samba::fail({"the standard output cannot be written"});
}

/// Throws where no file could be written to a path that an option names; nothing is written.
inline void check_output(const char* option, const std::string& path) {
  struct stat found {};
  const bool is_device = ::stat(path.c_str(), &found) == 0 && !S_ISREG(found.st_mode) &&
                         !S_ISDIR(found.st_mode);  // or a pipe
  try {
    if (!is_device)
      samba::FileWriter(std::string(path));  // makes its file, and removes it
    else if (::access(path.c_str(), W_OK) != 0)
      samba::fail_errno(path, "cannot write");
  } catch (const samba::Error& error) {
    samba::fail({option, ": ", error.what()});
  }
}

/// Writes a file atomically: it appears complete, or not at all.
inline void write_file(const std::string& path, std::string_view text) {
  samba::FileWriter file(path);
  file.write(std::as_bytes(std::span(text)));
  file.finish();
}

/// How far a program is, on the standard error: on a terminal a line that is written over, else a
/// line every ten seconds. The last one stays.
class Progress {
 public:
  Progress() = default;
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  ~Progress() {
    if (on_terminal_ && shown_)
      std::fputc('\n', stderr);
    else if (!on_terminal_ && !line_.empty())
      print();
  }

  [[gnu::format(printf, 2, 3)]] void show(const char* format, ...) {
    char text[200];
    std::va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    line_ = text;
    if (on_terminal_) {
      // Blanks over what is left of a longer line.
      std::fprintf(stderr, "\r%-*s", static_cast<int>(shown_), text);
      shown_ = line_.size();
    } else if (const auto now = Clock::now(); now >= next_) {
      print();
      next_ = now + std::chrono::seconds(10);
    }
  }

 private:
  using Clock = std::chrono::steady_clock;

  void print() {
    std::fprintf(stderr, "%s\n", line_.c_str());
    line_.clear();
  }

  static bool is_terminal() {
    const char* const name = std::getenv("TERM");
    return ::isatty(STDERR_FILENO) && name && std::string_view(name) != "dumb";
  }

  bool on_terminal_ = is_terminal();
  std::size_t shown_ = 0;  // characters of the line on the terminal
  std::string line_;       // that was not printed
  Clock::time_point next_ = Clock::now() + std::chrono::seconds(10);
};

/// Calls run() and returns the status of the program: 1, after a line on the standard error, where
/// something goes wrong or what was printed cannot be written.
template <class F>
int run_main(F&& run) {
  try {
    // A file that the program opens must not become its standard output.
    const bool closed = ::fcntl(STDOUT_FILENO, F_GETFD) < 0;
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; ++fd)
      if (::fcntl(fd, F_GETFD) < 0 && ::open("/dev/null", O_RDWR) != fd) return 1;
    if (closed) samba::fail({"the standard output is closed"});
    if (!samba::is_optimised)
      std::fprintf(
          stderr,
          "This program was compiled without optimisation and is tens of times slower than "
          "with -O3 (with CMake: -DCMAKE_BUILD_TYPE=Release).\n");
    run();
    check_printed();
    return 0;
  } catch (const std::exception& error) {
    std::fflush(stdout);
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
}

/// As above, for a program without options: --help prints a text, its own.
template <class F>
int run_main(int argc, char** argv, const char* help, F&& run) {
  return run_main([&] {
    for (int i = 1; i < argc; ++i)
      if (const std::string_view given = argv[i]; given == "--help" || given == "-h") {
        std::fputs(help, stdout);
        return;
      }
    run();
  });
}
