"""Write a page of tables and figures from saved evaluations and measurements.

Every evaluation.json below FOLDER is taken, with the papers' figures, and every detection.json with
the picture beside it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.report.detection import find_detector_evaluations
from benchmarks.report.page import find_evaluations, write_page
from benchmarks.report.speed import find_measurements


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="where evaluations lie")
    parser.add_argument("--speed", metavar="DIR", type=Path, help="what benchmarks of speed left")
    parser.add_argument("--out", metavar="FILE.md", type=Path, default=Path("RESULTS.md"))
    parser.add_argument("--figures", metavar="DIR", type=Path, help="beside the page: figures")
    given = parser.parse_args(arguments)
    detectors = find_detector_evaluations(given.folder)
    evaluations = find_evaluations(given.folder)
    if not evaluations and not detectors:
        parser.error(f"no evaluations below {given.folder}; `spikeport evaluate` makes them")
    measured = find_measurements(given.speed) if given.speed else {}
    figures = given.figures or given.out.parent / "figures"
    drawn = write_page(evaluations, given.out, figures, measured, detectors, given.folder)
    count = len(evaluations) + len(detectors)
    print(f"wrote {given.out} from {count} evaluations, and {len(drawn)} figures")


if __name__ == "__main__":
    main()
