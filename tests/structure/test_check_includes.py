#!/usr/bin/env python3
"""The include check must find each kind of broken rule, and nothing in a clean header."""
import pathlib
import tempfile
import unittest

import check_includes

CLEAN = "#pragma once\n#include <samba/core/config.hpp>\n#include <vector>\nnamespace samba::inline SAMBA_TARGET {}\n"


class CheckIncludes(unittest.TestCase):
    def problems(self, path, added=""):
        with tempfile.TemporaryDirectory() as folder:
            header = pathlib.Path(folder) / "samba" / path
            header.parent.mkdir(parents=True)
            header.write_text(CLEAN + added)
            found, count = check_includes.check(pathlib.Path(folder))
            self.assertEqual(count, 1)
            return "\n".join(found)

    def test_clean_headers(self):
        for folder in check_includes.ORDER:
            self.assertEqual(self.problems(f"{folder}/x.hpp"), "")
        self.assertEqual(self.problems("kernels/simd/x.hpp", "#include <xsimd/xsimd.hpp>\n"), "")
        self.assertEqual(self.problems("samba.hpp", "#include <samba/train/x.hpp>\n"), "")

    def test_direction(self):
        order = check_includes.ORDER
        for left, right in zip(order, order[1:]):
            self.assertIn("the order is", self.problems(f"{left}/x.hpp", f"#include <samba/{right}/y.hpp>\n"))
            self.assertEqual(self.problems(f"{right}/x.hpp", f"#include <samba/{left}/y.hpp>\n"), "")
        self.assertIn("the order is", self.problems("layers/x.hpp", "#include <samba/samba.hpp>\n"))

    def test_other_libraries(self):
        self.assertIn("only kernels/simd/", self.problems("kernels/x.hpp", "#include <xsimd/xsimd.hpp>\n"))
        self.assertEqual(self.problems("interop/eigen.hpp", "#include <Eigen/Core>\n"), "")
        for path in ["kernels/reference/x.hpp", "interop/x.hpp", "samba.hpp"]:
            self.assertIn("only interop/eigen.hpp", self.problems(path, "#include <Eigen/Core>\n"))
        self.assertIn("needs another library", self.problems("samba.hpp", "#include <samba/interop/eigen.hpp>\n"))
        self.assertIn("only core/parallel.hpp", self.problems("core/x.hpp", "#include <omp.h>\n"))
        self.assertIn("neither", self.problems("runtime/x.hpp", "#include <CLI/CLI.hpp>\n"))
        self.assertIn("too costly", self.problems("io/x.hpp", "#include <iostream>\n"))
        self.assertIn("write <samba/", self.problems("io/x.hpp", '#include "y.hpp"\n'))

    def test_kernels(self):
        levels = ["kernels/y.hpp", "kernels/reference/y.hpp", "kernels/simd/y.hpp", "kernels/cpu/y.hpp"]
        for below, above in zip(levels, levels[1:]):
            self.assertIn("operations < reference", self.problems(below, f"#include <samba/{above}>\n"))
            self.assertEqual(self.problems(above, f"#include <samba/{below}>\n"), "")
            self.assertIn("operations only", self.problems("layers/x.hpp", f"#include <samba/{above}>\n"))
        self.assertIn("operations only", self.problems("model/x.hpp", "#include <samba/kernels/cpu.hpp>\n"))
        self.assertEqual(self.problems("layers/x.hpp", "#include <samba/kernels/y.hpp>\n"), "")
        self.assertEqual(self.problems("runtime/x.hpp", "#include <samba/kernels/cpu.hpp>\n"), "")

    def test_words(self):
        self.assertIn("only core/parallel.hpp", self.problems("runtime/x.hpp", "#pragma omp parallel\n"))
        self.assertIn("only core/parallel.hpp", self.problems("kernels/x.hpp", "#ifdef _OPENMP\n#endif\n"))
        self.assertEqual(self.problems("core/parallel.hpp", "#pragma omp barrier\n"), "")
        self.assertIn("a layer never", self.problems("layers/x.hpp", "// as CUDA does\n"))

    def test_places(self):
        self.assertIn("outside the folders", self.problems("x.hpp"))
        self.assertIn("not one of", self.problems("util/x.hpp"))

    def test_form(self):
        with_header = lambda text: "\n".join(check_includes.problems_in("core/x.hpp", text))
        self.assertIn("#pragma once", with_header("namespace samba::inline SAMBA_TARGET {}\n"))
        self.assertIn("SAMBA_TARGET", with_header("#pragma once\nnamespace samba {}\n"))


if __name__ == "__main__":
    unittest.main()
