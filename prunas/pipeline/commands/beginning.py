"""How a run begins: whatever would stop it is found before anything long."""

from contextlib import ExitStack, suppress
from pathlib import Path

import torch

from prunas.pipeline.crew import launched
from prunas.pipeline.folders import require_readable
from prunas.pipeline.lock import LOCK
from prunas.pipeline.log import SILENT, Log
from prunas.pipeline.progress import Progress
from prunas.pipeline.request import Request
from prunas.pipeline.run_folder import RunFolder
from prunas.pipeline.sources import require_source
from prunas.pipeline.stages import Job
from prunas.pipeline.weights import digest_of
from prunas.pipeline.workers import HERE, Workers


def begun(
    path: Path,
    request: Request,
    *,
    resume: bool,
    device: torch.device,
    log: Log = SILENT,
    workers: Workers = HERE,
) -> Job:
    """A run that is possible; if it turns out not to be, no folder is left behind."""
    new = not (path / "run.json").exists()
    with ExitStack() as undo:
        folder = RunFolder.create(path, request, resume=resume)
        if new:
            undo.callback(_take_back, path)
        job = Job(folder, device, Progress(visible=True, log=log), workers, launched())
        for recipe in (
            request.full_recipe,
            request.supernet_recipe,
            request.finalist_recipe,
            request.final_recipe,
        ):
            recipe()  # raises what is wrong with it, before anything long begins
        job.feasible  # noqa: B018  (so does this: data, network, weights, space, budget)
        require_source(job)
        if job.stopwatch is not None:
            job.stopwatch.require_table()
        require_readable(job.data.files)
        if folder.contents() is None:
            weights = {} if request.weights is None else {"weights": digest_of(request.weights)}
            folder.update({"data": job.data.contents.to_json(), **weights})
        undo.pop_all()
    return job


def _take_back(path: Path) -> None:
    for file in ("run.json", LOCK):
        (path / file).unlink(missing_ok=True)
    for empty in (path / "checkpoints", path):
        with suppress(OSError):
            empty.rmdir()
