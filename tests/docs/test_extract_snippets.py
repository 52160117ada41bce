#!/usr/bin/env python3
"""The extraction of snippets finds every block and accepts none that it does not know."""
import unittest

from extract_snippets import snippets_of


class ExtractSnippets(unittest.TestCase):
    def test_blocks(self):
        text = "# A\n```cpp\nint a;\n```\ntext\n```sh\nscripts/demo\n```\n```cpp\nint main() {}\n```\n"
        first, shell, program = snippets_of("README.md", text)
        self.assertEqual((first.name, first.code, first.is_program), ("README.md:3", "int a;\n", False))
        self.assertEqual((shell.language, shell.code), ("sh", "scripts/demo\n"))
        self.assertTrue(program.is_program)
        self.assertEqual(program.source(), '#line 10 "README.md"\nint main() {}\n')

    def test_namespace_and_function(self):
        outside, inside = snippets_of("a.md", "```cpp\nint a;\n```\n```cpp\n// inside a function\nf();\n```\n")
        self.assertIn("#include <samba/samba.hpp>\nusing namespace samba;\n#line 2", outside.source())
        self.assertNotIn("snippet()", outside.source())
        self.assertRegex(inside.source(), r"void snippet\(\) \{\n#line 5 \"a.md\"\n// inside a function\nf\(\);\n\}")

    def test_headers(self):
        header, other = snippets_of("a.md", "```cpp\n// mine.hpp\nint a;\n```\n```cpp\n// mine\nint b;\n```\n")
        self.assertEqual((header.header, other.header), ("mine.hpp", None))

    def test_unknown_blocks(self):
        for text in ["```\nx\n```\n", "```c++\nx\n```\n", "```cpp\nx\n", "~~~\nx\n~~~\n"]:
            with self.assertRaises(ValueError, msg=text):
                snippets_of("a.md", text)


if __name__ == "__main__":
    unittest.main()
