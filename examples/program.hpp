#pragma once
// How the programs with options begin and end.
#include <CLI/CLI.hpp>

#include <cstdio>
#include <exception>

/// Reads the options and calls run(); returns the status of the program. What goes wrong is a line
/// on the standard error.
template <class F>
int run_program(CLI::App& app, int argc, char** argv, F&& run) {
  try {
    app.parse(argc, argv);
    run();
    return 0;
  } catch (const CLI::CallForHelp& help) {
    return app.exit(help);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
}
