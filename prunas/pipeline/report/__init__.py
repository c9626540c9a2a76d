"""The report of a run: one HTML file that a person wants to look at, and that needs no network."""

from pathlib import Path

from prunas.pipeline.files import write_text
from prunas.pipeline.report.page import page
from prunas.pipeline.report.run import read_run

__all__ = ["write_report"]


def write_report(run_folder: Path) -> Path:
    """Writes report.html into the folder of a run, finished or not, and returns its path.

    The same run gives the same bytes. Raises InputError if the folder holds no readable run, and
    RunError if the report cannot be written; an earlier report then stays as it was.
    """
    report = run_folder / "report.html"
    write_text(report, page(read_run(run_folder)))
    return report
