"""Every page: `simgan` takes its commands, its links and file names lead somewhere."""

import re

import pytest

from flows.cli.main import app
from tests.docs.pages import PAGES, README, ROOT, Page

# The command of that page is of the format that it adds; tests/source_samples.py adds it.
WITH_COMMANDS = [page for page in PAGES if page.commands and page.path.name != "own-source.md"]


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=str)
def test_commands_have_the_options_that_the_program_has(page: Page) -> None:
    for words in page.commands:
        app.parse_args(words, exit_on_error=False, print_error=False)


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_and_file_names_lead_to_files(page: Page) -> None:
    missing = [name for name in page.links if not (page.path.parent / name).exists()]
    missing += [name for name in page.files if not (ROOT / name).exists()]
    assert missing == []


def test_each_decision_has_a_row_with_its_date_in_the_table_of_its_section() -> None:
    sections = (ROOT / "docs/decisions.md").read_text("utf-8").split("\n## ")[1:]
    for section in sections:
        rows = re.findall(r"^\| \[(.+)\]\(#[\w-]+\) \| (\S+) \|", section, re.MULTILINE)
        entries = re.findall(r"^### (.+)\n\n\*(\S+)\.\*", section, re.MULTILINE)
        assert rows == entries
        assert len(entries) == section.count("\n### ") > 0


def test_readme_is_a_page_not_a_book() -> None:
    assert len(README.read_text("utf-8").splitlines()) < 200


def test_readme_names_every_top_level_folder() -> None:
    tree = README.read_text("utf-8")
    for folder in ("flows/", "tasks/", "simgan_core/", "storage/", "tests/", "docs/", "examples/"):
        assert folder in tree
