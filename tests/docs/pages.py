"""What the documentation's pages say: their commands, blocks of Python, links and file names."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"


@dataclass(frozen=True)
class Page:
    """A page of the documentation, or README."""

    path: Path

    @property
    def text(self) -> str:
        return self.path.read_text("utf-8")

    @property
    def commands(self) -> list[list[str]]:
        """The words of every `simgan …` line, without `simgan` and comments."""
        lines = re.findall(r"^ {4,}(simgan .*)$", self.text, re.MULTILINE)
        return [shlex.split(line, comments=True)[1:] for line in lines]

    @property
    def python(self) -> list[str]:
        """The fenced blocks of Python."""
        return re.findall(r"```python\n(.*?)```", self.text, re.DOTALL)

    @property
    def files(self) -> list[str]:
        """Files and folders of the repository that stand in backticks."""
        tops = "flows|tasks|simgan_core|storage|tests|benchmarks|docs|examples"
        return re.findall(rf"`((?:{tops})/[\w./-]*)`", self.text)

    @property
    def links(self) -> list[str]:
        """Targets of links and pictures that are files beside the page."""
        return re.findall(r"\]\((?!https?:|#)([^)#\s]+)", self.text)

    def __str__(self) -> str:
        return str(self.path.relative_to(ROOT))


PAGES = [
    Page(path)
    for path in (
        README,
        *(ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md")),
        *sorted((ROOT / "docs").rglob("*.md")),
    )
]
