#!/usr/bin/env python3
"""The code blocks of README.md and docs/*.md. Run alone, it writes every C++ one as a file that compiles.

Usage: extract_snippets.py OUTPUT_FOLDER

A ```cpp block with `int main` is a program. Any other is compiled at namespace scope after the library's
header and `using namespace samba`; if its first line is `// inside a function`, in the body of a function. One whose
first line is a name, `// mine.hpp`, is also a file of that name, which others include.
```sh, ```text, ```json and ```cmake blocks are not compiled. Any other block is an error.
"""
import dataclasses
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
NOT_COMPILED = {"sh", "text", "json", "cmake", "python"}
OPENING = "#include <samba/samba.hpp>\nusing namespace samba;\n"


@dataclasses.dataclass
class Snippet:
    document: str
    line: int  # of the block's first line of code
    language: str
    code: str

    @property
    def name(self):
        return f"{self.document}:{self.line}"

    @property
    def is_program(self):
        return re.search(r"\bint main\b", self.code) is not None

    @property
    def header(self):
        """The name under which other snippets include this one, or None."""
        named = re.match(r"// (\w+\.hpp)\n", self.code)
        return named and named[1]

    def source(self):
        """The snippet as a file; #line makes the compiler name the document."""
        place = f'#line {self.line} "{self.document}"\n'
        if self.is_program:
            return place + self.code
        if self.code.startswith("// inside a function\n"):
            return f"{OPENING}[[maybe_unused]] static void snippet() {{\n{place}{self.code}}}\n"
        return OPENING + place + self.code


def snippets_of(document, text):
    """All fenced blocks of a Markdown text; raises ValueError for one that is not of a known kind."""
    found, block = [], None
    for number, line in enumerate(text.splitlines(), 1):
        fence = re.match(r"\s*```\s*([^`\s]*)\s*$", line)
        if fence and block is None:
            language = fence[1]
            if language != "cpp" and language not in NOT_COMPILED:
                raise ValueError(f"{document}:{number}: a code block of kind '{language}'; "
                                 f"known are cpp, {', '.join(sorted(NOT_COMPILED))}")
            block = Snippet(document, number + 1, language, "")
        elif fence and not fence[1]:
            found.append(block)
            block = None
        elif block is not None:
            block.code += line + "\n"
        elif line.lstrip().startswith("~~~"):
            raise ValueError(f"{document}:{number}: write code blocks with ```")
    if block is not None:
        raise ValueError(f"{block.name}: the code block is not closed")
    return found


def all_snippets():
    documents = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [snippet for document in documents if document.exists()
            for snippet in snippets_of(document.relative_to(ROOT).as_posix(), document.read_text())]


if __name__ == "__main__":
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for snippet in all_snippets():
        if snippet.language == "cpp":
            path = folder / (re.sub(r"[/.:]", "_", snippet.name) + ".cpp")
            path.write_text(snippet.source())
            print(path)
            if snippet.header:
                (folder / snippet.header).write_text(snippet.code)
