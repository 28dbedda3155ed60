"""Print the counts of several pytest runs (JUnit XML reports), and their sum as the last line."""

from __future__ import annotations

import ast
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

OUTCOMES = ("failed", "passed", "skipped", "error")


def read(report: Path) -> tuple[Counter[str], float]:
    """Counts by outcome and the seconds of one report."""
    counts: Counter[str] = Counter()
    seconds = 0.0
    for suite in ElementTree.parse(report).getroot().iter("testsuite"):
        failed, errors, skipped = (
            int(suite.get(key, 0)) for key in ("failures", "errors", "skipped")
        )
        passed = int(suite.get("tests", 0)) - failed - errors - skipped
        counts.update(failed=failed, passed=passed, skipped=skipped, error=errors)
        seconds += float(suite.get("time", 0))
    return counts, seconds


def skip_reasons(report: Path) -> Counter[str]:
    """How many tests, or whole files of them, were skipped for each reason."""
    skipped = ElementTree.parse(report).getroot().iter("skipped")
    return Counter(_reason(found) for found in skipped)


def _reason(skipped: ElementTree.Element) -> str:
    message = str(skipped.get("message"))
    if message != "collection skipped":
        return message
    # Of a whole file the reason is in the text: (path, line, "Skipped: reason").
    return str(ast.literal_eval(str(skipped.text))[-1]).removeprefix("Skipped: ")


def line(counts: Counter[str], seconds: float) -> str:
    """The counts in the words of pytest's closing line."""
    shown = [f"{counts[key]} {key}" for key in OUTCOMES if counts[key]] or ["no tests ran"]
    return f"{', '.join(shown)} in {seconds:.0f}s"


def main() -> None:
    """Summarise the reports given as arguments; the file names are the names of the runs."""
    total: Counter[str] = Counter()
    duration = 0.0
    for report in map(Path, sys.argv[1:]):
        counts, seconds = read(report)
        print(f"{report.stem}: {line(counts, seconds)}")
        for reason, number in skip_reasons(report).items():
            print(f"  skipped {number}x: {reason}")
        total.update(counts)
        duration += seconds
    print(line(total, duration))


if __name__ == "__main__":
    main()
