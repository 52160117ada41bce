#!/usr/bin/env python3
"""Every relative link of a Markdown file points to a file or folder that exists, and to a heading if it names one."""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
LINK = re.compile(r"\]\(([^)\s]+)\)")


def prose(text):
    """The text without code blocks and inline code."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))


def anchors(path):
    headings = re.findall(r"^#+ (.*)$", prose(path.read_text(encoding="utf-8")), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(document, text):
    """Targets in `text`, a Markdown file at the path `document`, that lead nowhere."""
    for target in LINK.findall(prose(text)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = document.parent / path if path else document
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
            yield target


def main():
    documents = sorted(ROOT.glob("*.md")) + sorted((ROOT / "docs").rglob("*.md"))
    broken = [f"{document.relative_to(ROOT)}: no such place: {target}"
              for document in documents for target in broken_links(document, document.read_text(encoding="utf-8"))]
    print("\n".join(broken + [f"{len(documents)} documents, {len(broken)} broken links"]))
    return 1 if broken or not documents else 0


if __name__ == "__main__":
    sys.exit(main())
