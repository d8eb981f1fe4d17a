"""What the pages point to is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGES = ["README.md", *sorted(str(page.relative_to(ROOT)) for page in (ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_a_page_leads_somewhere(page: str) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", (ROOT / page).read_text("utf-8"))

    missing = [link for link in links if not (ROOT / page).parent.joinpath(link).exists()]

    assert missing == []


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_a_page_names_exists(page: str) -> None:
    named = re.findall(r"`((?:src|docs|tests|tools|components)/[\w./-]+)`", (ROOT / page).read_text("utf-8"))

    assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_room_of_the_readme_exists() -> None:
    _, _, table = (ROOT / "README.md").read_text("utf-8").partition("## To change X, open Y")
    rows = [line for line in table.partition("\n## ")[0].splitlines() if line.startswith("| ")]
    named = [path for row in rows for path in re.findall(r"`([a-z_]+(?:/[\w.]*)+|\w+\.py)`", row)]
    homes = (ROOT / "src" / "everturn", ROOT)

    assert len(named) > len(rows)
    assert [path for path in named if not any((home / path).exists() for home in homes)] == []
