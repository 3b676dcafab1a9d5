"""The documentation as a site: built strictly, and nothing in it is fetched from elsewhere."""

import re
import subprocess
import sys
from pathlib import Path

from tests.docs.pages import ROOT


def test_site_builds_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir",
               str(tmp_path), "--config-file", "docs/site/mkdocs.yml"]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert {"index.html", "python.html", "simgan_core.html"} <= {page.name for page in pages}
    loaded = r'<(?:script|img|link rel="(?:stylesheet|preconnect)")[^>]*(?:src|href)="https?:'
    assert [page for page in pages if re.search(loaded, page.read_text("utf-8"))] == []
