"""The report of a run: one HTML file that a person wants to look at, and that needs no network."""

from pathlib import Path

from prunas.errors import RunError
from prunas.pipeline.report.page import page
from prunas.pipeline.report.run import read_run

__all__ = ["write_report"]


def write_report(run_folder: Path) -> Path:
    """Writes report.html into the folder of a run, finished or not, and returns its path.

    The same run gives the same bytes. Raises InputError if the folder holds no readable run, and
    RunError if the report cannot be written; an earlier report then stays as it was.
    """
    report = run_folder / "report.html"
    aside = run_folder / "report.html.part"
    text = page(read_run(run_folder))
    try:
        aside.write_text(text, encoding="utf-8")
        aside.replace(report)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise RunError(f"{report} cannot be written: {error.strerror or error}.") from error
    return report
