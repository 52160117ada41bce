#pragma once
// How the programs with options begin and end.
#include "output.hpp"

#include <CLI/CLI.hpp>

#include <type_traits>

/// What an option like --quick sets: nothing that was given.
template <class X>
void set_unless_given(const CLI::App& app, const char* option, X& value,
                      const std::type_identity_t<X>& other) {
  if (app.count(option) == 0) value = other;
}

/// Reads the options and calls run(); returns the status of the program. What goes wrong is a line
/// on the standard error.
template <class F>
int run_program(CLI::App& app, int argc, char** argv, F&& run) {
  return run_main([&] {
    // No number that these programs take may be negative.
    for (CLI::Option* const option : app.get_options())
      if (const std::string type = option->get_type_name();
          type.starts_with("INT") || type.starts_with("UINT") || type.starts_with("FLOAT"))
        option->check([](const std::string& value) {
          return value.starts_with('-') ? "expected at least 0, found " + value : std::string();
        });
    try {
      app.parse(argc, argv);
    } catch (const CLI::CallForHelp& help) {
      app.exit(help);
      return;
    }
    run();
  });
}
