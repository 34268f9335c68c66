"""The sizes that a reader can hold. `make size` prints them, without an installation."""

from __future__ import annotations

from pathlib import Path
from statistics import median

ROOT = Path(__file__).parent.parent
LONGEST, MIDDLE, ENTRIES, SHOWN = 350, 130, 17, 12


def lines(*folders: str) -> dict[str, int]:
    """Lines of each Python and C++ file of these folders, the longest first."""
    kinds = (".py", ".cpp", ".inc")
    files = [file for folder in folders for file in (ROOT / folder).rglob("*") if file.suffix in kinds]
    found = {file.relative_to(ROOT).as_posix(): file.read_text(encoding="utf-8").count("\n") for file in files}
    return dict(sorted(found.items(), key=lambda one: -one[1]))


def test_no_file_is_too_long_and_most_are_short() -> None:
    source = lines("cascade", "bench", "export")
    assert {name: count for name, count in source.items() if count > LONGEST} == {}, "split it: it is two rooms"
    assert median(source.values()) <= MIDDLE


def test_the_first_folder_can_be_taken_in_at_a_glance() -> None:
    assert len([path for path in (ROOT / "cascade").iterdir() if path.name != "__pycache__"]) <= ENTRIES


if __name__ == "__main__":
    for title, found in (("source", lines("cascade", "bench", "export")), ("tests", lines("tests"))):
        print(f"{title}: {sum(found.values())} lines in {len(found)} files, median {median(found.values()):g}")
    print(*(f"{count:6} {name}" for name, count in list(lines("cascade", "bench", "export").items())[:SHOWN]), sep="\n")
