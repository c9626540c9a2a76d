"""`prunas criteria`."""

from pathlib import Path
from typing import Annotated

import typer

from prunas.pipeline.commands.answers import print_json
from prunas.pipeline.commands.options import (
    Address,
    AsJson,
    Classes,
    CriterionLimit,
    DataName,
    Device,
    Executor,
    GpusPerWorker,
    Keep,
    Pretrained,
    WeightsFile,
    WorkerCount,
    device_of,
    workers_of,
)
from prunas.pipeline.commands.stopping import stoppable
from prunas.pipeline.criteria_study import Subject, study
from prunas.pipeline.files import require_writable_file, write_text
from prunas.pipeline.progress import Progress
from prunas.pipeline.report.criteria_page import criteria_page


def criteria(
    model: Annotated[str, typer.Argument(help="A timm network.")],
    data: DataName = None,
    pretrained: Pretrained = False,
    weights: WeightsFile = None,
    names: Annotated[
        list[str] | None,
        typer.Option("--criterion", help="Only these; may be repeated. [all that can judge]"),
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="Training images to look at.")] = 1024,
    out: Annotated[Path | None, typer.Option(help="The page. [MODEL-criteria.html]")] = None,
    input_size: Annotated[
        int | None, typer.Option(min=1, help="Resize images to this side.", metavar="SIDE")
    ] = None,
    classes: Classes = None,
    keep: Keep = None,
    device: Device = "auto",
    workers: WorkerCount = None,
    executor: Executor = None,
    address: Address = None,
    gpus_per_worker: GpusPerWorker = None,
    limit: CriterionLimit = None,
    as_json: AsJson = False,
) -> None:
    """Write a page about what criteria say of a network, and where choosing is pointless."""
    where = device_of(device)
    file = out or Path(f"{Path(model).name}-criteria.html")
    require_writable_file(file)
    crew, _ = workers_of(workers, executor, address, gpus_per_worker, work_limit=limit)
    subject = Subject(
        model=model,
        data=data,
        side=input_size,
        classes=classes,
        pretrained=pretrained,
        weights=weights,
        keep=tuple(keep or ()),
        images=images,
        device=str(where),
    )
    with stoppable():
        found = study(subject, names or None, crew, Progress(visible=True))
        write_text(file, criteria_page(found))
    said = found.findings
    if as_json:
        print_json({"page": str(file), "criteria": list(found.verdicts), "findings": said})
        return
    for sentence in said:
        typer.echo(sentence)
    typer.echo(f"page, to be opened in a browser: {file}")
