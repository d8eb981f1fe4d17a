"""Write docs/reference/settings.md from the settings themselves; with `--check`, only compare."""

import sys
from pathlib import Path
from typing import Any

from everturn.settings import Settings, environment_name

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "settings.md"
HEAD = """# Settings

Settings come from the environment, or from a file `.env` in the working folder; the environment wins. They are read
once, when a process starts. A wrong one ends the process with exit code 2 and one sentence that names it; a name that
is no setting is warned of in the log. Names are not case-sensitive. Without any model setting the offline demo answers.

This page is written by `make format` from the code, and `make check` compares it.

| setting | default | meaning |
|---|---|---|
"""


def page() -> str:
    rows = (
        f"| `{environment_name(name)}` | {_shown(field.default)} | {field.description} |\n"
        for name, field in Settings.model_fields.items()
    )
    return HEAD + "".join(rows)


def _shown(default: Any) -> str:
    if default is None:
        return ""
    return f"`{','.join(default)}`" if isinstance(default, tuple) else f"`{default}`"


def main(arguments: list[str]) -> int:
    if "--check" not in arguments:
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text(page(), "utf-8")
        return 0
    if not PAGE.is_file() or PAGE.read_text("utf-8") != page():
        print("settings: docs/reference/settings.md is not what the settings are: run make format")
        return 1
    print("settings: fine")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
