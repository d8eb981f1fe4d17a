"""Keep rooms small: a module has at most 500 lines, a function at most 40 (its docstring aside)."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

MAX_MODULE_LINES = 500
MAX_FUNCTION_LINES = 40


def too_long(path: Path) -> Iterator[str]:
    """A sentence for each thing in `path` that is over its limit."""
    source = path.read_text("utf-8")
    lines = source.count("\n")
    if lines > MAX_MODULE_LINES:
        yield f"{path}: {lines} lines, at most {MAX_MODULE_LINES}"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = _length(node)
            if length > MAX_FUNCTION_LINES:
                yield f"{path}:{node.lineno}: {node.name} has {length} lines, at most {MAX_FUNCTION_LINES}"


def _length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    assert function.end_lineno is not None
    length = function.end_lineno - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function) is not None and first.end_lineno is not None:
        length -= first.end_lineno - first.lineno + 1
    return length


def main(folders: list[str]) -> int:
    faults = [fault for folder in folders for path in sorted(Path(folder).rglob("*.py")) for fault in too_long(path)]
    for fault in faults:
        print(fault)
    print(f"sizes: {len(faults)} too long" if faults else "sizes: fine")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
