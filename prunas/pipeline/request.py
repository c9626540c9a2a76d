"""What a user asks of a run, in one immutable value."""

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from prunas.errors import InputError
from prunas.eval.latency.backends import BACKENDS
from prunas.pipeline.checkpoints import Every
from prunas.pipeline.fields import require_types
from prunas.pipeline.recipe import Recipe
from prunas.pipeline.seeding import require_seed
from prunas.search.budget import Budget
from prunas.search.methods import SEARCHES
from prunas.supernet.schedules.table import DEFAULT, require_schedule
from prunas.supernet.trace import kinds_of

SOURCES: Final = ("supernet", "pruningnet", "pruningnet-published")
"""Where the weights of candidates come from while they are scored."""

WHOLE_FRONT: Final = frozenset({"nsga2", "uniform"})
"""Those that look at candidates of any cost within the limits, not only near them."""

FREE_OF_SCORES: Final = frozenset(
    {
        "evaluations",
        "batch",
        "in_flight",
        "seeds",
        "finalists",
        "finalist_epochs",
        "final_epochs",
        "from_scratch",
        "small_memory",
        "compile",
        "checkpoint_every",
        "transform",
    }
)
"""What scores do not depend on: more evaluations, other seeds of the end, less memory; compiled
networks round otherwise, and that is all."""

_LISTS: Final = ("keep", "genes", "resolutions")
_POSITIVE: Final = (
    "evaluations",
    "batch",
    "in_flight",
    "seeds",
    "supernet_epochs",
    "finalists",
    "finalist_epochs",
    "final_epochs",
    "batch_size",
    "latency_batch",
    "paths",
)


@dataclass(frozen=True)
class Request:
    """Everything that decides the result of a run; equal requests give equal runs.

    Attributes:
        model: a timm architecture.
        data: "digits", "photos", a folder, an .npz file, or a name of timm's data sets.
        budget: upper bounds such as "macs=40%,params=2M".
        search: one of `SEARCHES`.
        evaluations: candidates to score.
        batch: candidates that the search asks for at once; None: 10, or a tenth of `in_flight`.
        in_flight: candidates that are evaluated at a time, whose scores are told as they arrive;
            None: a batch is finished before the next one is asked for (`prunas.search.run_search`).
        seed: of everything random.
        seeds: final trainings of the found and of the uniform network, each with its own seed.
        resolutions: further sides of the images that candidates may see; see `prunas.trace`.
        grid: which widths are offered (`prunas.supernet.grid`).
        keep: patterns of layers that stay untouched.
        genes: the kinds that are searched; see `prunas.trace`.
        pretrained: start from timm's pretrained weights.
        weights: start from the weights in this file.
        source: one of `SOURCES`.
        small_memory: generate a layer's weight only while it runs.
        epochs: training of the full network; None: 40 from scratch, 5 from given weights.
        supernet_epochs: training of the shared weights.
        finalists: candidates that are trained for a while before one of them is found; 1 takes
            the best score.
        finalist_epochs: training of each of them; None: 5, or from scratch a third of the final
            training, as networks that begin at random take longer to tell apart.
        final_epochs: training of the found network.
        from_scratch: begin the final training, and that of the finalists, from random weights, not
            from those of the source.
        batch_size: images in a training step.
        learning_rate: peak rate of all trainings.
        precision: one of `PRECISIONS`.
        accumulate: parts in which a batch is run, so as to need less memory; see `Recipe`.
        ema: decay of the average of weights that is the result of all trainings; 0: the last ones.
        compile: the full network and the final ones are trained through `torch.compile`.
        checkpoint_every: seconds between checkpoints within an epoch.
        paths: random candidates in each supernet step; a schedule may run several times as many.
        schedule: what the steps of the shared weights run (`prunas.supernet.schedules.table`).
        kernel_transform: learn how smaller kernels come from larger ones.
        calibration: training images that batch norms of a candidate are recalibrated on.
        scoring: held-out images, at most, that a candidate is scored on.
        prior: order channels by, and search from, discriminant information.
        input_size: height and width the images are resized to; None: their own.
        latency_backend: what networks are timed on, one of `BACKENDS`; None: "eager" where the
            budget limits latency, and nothing is timed where it does not.
        latency_batch: images at a time.
        latency_table: file of the table of this space and device, built there if it is missing;
            None: in the run's folder.
        transform: replace redundant operators of the found network after the search.
    """

    model: str
    data: str
    budget: str
    search: str = "regression"
    evaluations: int = 400
    batch: int | None = None
    in_flight: int | None = None
    seed: int = 0
    seeds: int = 3
    resolutions: tuple[int, ...] = ()
    grid: str = "default"
    keep: tuple[str, ...] = ()
    genes: tuple[str, ...] = ("width",)
    pretrained: bool = False
    weights: str | None = None
    source: str = "supernet"
    small_memory: bool = False
    epochs: int | None = None
    supernet_epochs: int = 20
    finalists: int = 8
    finalist_epochs: int | None = None
    final_epochs: int = 30
    from_scratch: bool = False
    batch_size: int = 64
    learning_rate: float = 0.05
    precision: str = "auto"
    accumulate: int = 1
    ema: float = 0.0
    compile: bool = False
    checkpoint_every: float = 600.0
    paths: int = 1
    schedule: str = DEFAULT
    kernel_transform: bool = False
    calibration: int = 512
    scoring: int = 10_000
    prior: bool = True
    input_size: int | None = None
    latency_backend: str | None = None
    latency_batch: int = 1
    latency_table: str | None = None
    transform: bool = False

    def __post_init__(self) -> None:
        if self.search not in SEARCHES:
            raise InputError(f"no search is called {self.search!r}; choose {', '.join(SEARCHES)}")
        if self.source not in SOURCES:
            raise InputError(
                f"no weights source is called {self.source!r}; choose {', '.join(SOURCES)}"
            )
        if self.latency_backend not in (None, *BACKENDS):
            raise InputError(
                f"{self.latency_backend!r} is not a backend; choose one of {', '.join(BACKENDS)}"
            )
        kinds_of(self.genes)
        require_schedule(self.schedule)
        if self.kernel_transform and self.source != "supernet":
            raise InputError(
                f"kernels are transformed among shared weights, and those of {self.source} are"
                " generated; use the supernet, or leave the transform out"
            )
        self.every()
        require_seed(self.seed)
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name}={value} must be at least 1")
        if self.in_flight is not None and self.in_flight < self.asked_at_once:
            raise InputError(
                f"in_flight={self.in_flight} is less than a batch of {self.asked_at_once}; give a"
                " smaller --batch, or none"
            )
        if self.resolutions and min(self.resolutions) < 1:
            raise InputError(f"images of side {min(self.resolutions)} do not exist")
        if self.pretrained and self.weights is not None:
            raise InputError("give either pretrained weights or a weights file, not both")

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Request":
        """Read what `to_json` wrote.

        Raises:
            InputError: a field is unknown, missing, or not of its type.
        """
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(data) - known)
        if unknown or not {"model", "data", "budget"} <= set(data):
            raise InputError(f"the run's request cannot be read (unknown fields: {unknown})")
        require_types(cls, data)
        lists = {name: tuple(value) for name, value in data.items() if name in _LISTS}
        return cls(**{**data, **lists})

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), **{name: list(getattr(self, name)) for name in _LISTS}}

    def fingerprint(self) -> str:
        """Short text that differs when anything differs that a candidate's score depends on."""
        decisive = {k: v for k, v in self.to_json().items() if k not in FREE_OF_SCORES}
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def limits_latency(self) -> bool:
        return "latency" in dict(Budget.parse(self.budget).limits)

    @property
    def asked_at_once(self) -> int:
        """Candidates in a batch; 10 as in the comparisons by which the default was chosen."""
        usual = 10 if self.in_flight is None else max(1, self.in_flight // 10)
        return usual if self.batch is None else self.batch

    def full_recipe(self) -> Recipe | None:
        """Training of the full network; None if the given weights are to be used as they are."""
        started = self.pretrained or self.weights is not None
        epochs = (5 if started else 40) if self.epochs is None else self.epochs
        return self._recipe(epochs, compiled=self.compile) if epochs else None

    def supernet_recipe(self) -> Recipe:
        return self._recipe(self.supernet_epochs)

    def finalist_recipe(self) -> Recipe:
        usual = max(1, self.final_epochs // 3) if self.from_scratch else 5
        epochs = usual if self.finalist_epochs is None else self.finalist_epochs
        return self._recipe(epochs, rate=1.0 if self.from_scratch else 0.5)

    def ranking_recipe(self, epochs: int) -> Recipe:
        """Of networks that begin with the weights of the full one."""
        return self._recipe(epochs, rate=0.5)

    def final_recipe(self) -> Recipe:
        rate = 1.0 if self.from_scratch else 0.5
        return self._recipe(self.final_epochs, rate=rate, compiled=self.compile)

    def every(self) -> Every:
        """When trainings are written down."""
        return Every(self.checkpoint_every)

    def _recipe(self, epochs: int, *, rate: float = 1.0, compiled: bool = False) -> Recipe:
        return Recipe(
            epochs=epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate * rate,
            precision=self.precision,
            accumulate=self.accumulate,
            ema=self.ema,
            compile=compiled,
        )


def demo_request() -> Request:
    """The main job on bundled data: minutes on two cores."""
    return Request(
        model="mobilenetv2_050",
        data="digits",
        budget="macs=40%",
        evaluations=150,
        seeds=2,
        epochs=20,
        supernet_epochs=12,
        finalists=6,
        finalist_epochs=4,
        final_epochs=15,
        learning_rate=0.05,
        calibration=256,
    )
