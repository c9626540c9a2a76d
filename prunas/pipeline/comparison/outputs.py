"""The files about a finished comparison, for programs and for spreadsheets."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from prunas.pipeline.comparison.folder import CompareFolder
from prunas.pipeline.comparison.results import Figure, Results, Summary, pair_rows
from prunas.pipeline.files import write_text


def write_results(folder: CompareFolder, results: Results) -> None:
    """summary.csv, pairs.csv, and compare.json, which comes last and says that all is there.

    Raises:
        RunError: the disk is full.
    """
    write_text(folder.path / "summary.csv", _csv([_row(each) for each in results.summaries]))
    write_text(folder.path / "pairs.csv", _csv(pair_rows(results)))
    folder.write(results.to_json())


def _row(summary: Summary) -> dict[str, Any]:
    """An interval in three columns."""
    return {
        "contender": summary.contender,
        "space": summary.space,
        "budget": summary.budget,
        "at": summary.at,
        "seeds": summary.seeds,
        **_columns("mean_regret", summary.mean),
        **_columns("iqm_regret", summary.iqm),
        "median_regret": summary.median,
        **_columns("mean_test_regret", summary.test),
        "evaluations_made": summary.made,
        "method_seconds": summary.seconds,
        "evaluations_to_random_mean": summary.to_random_mean,
        "evaluations_to_random_median": summary.to_random_median,
    }


def _columns(name: str, figure: Figure | None) -> dict[str, float | None]:
    parts = dict.fromkeys(("value", "low", "high")) if figure is None else asdict(figure)
    return {name: parts["value"], f"{name}_low": parts["low"], f"{name}_high": parts["high"]}


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
