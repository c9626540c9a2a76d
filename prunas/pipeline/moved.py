"""Data and weights of a run that lie elsewhere now, as on another machine."""

from collections.abc import Mapping

from prunas.errors import InputError
from prunas.pipeline.data import load_data
from prunas.pipeline.run_folder import RunFolder
from prunas.pipeline.weights import digest_of


def move(folder: RunFolder, *, data: str | None = None, weights: str | None = None) -> None:
    """Write down where they lie now, if they hold what they held when the run began.

    The request stays as it is, so that the run is the same one.

    Args:
        folder: the run, which is claimed.
        data: the place of its data; None if that is known.
        weights: the place of its weights file; None if that is known, or there is none.

    Raises:
        InputError: they hold something else, or the run does not know what they held.
    """
    given = {name: each for name, each in (("data", data), ("weights", weights)) if each}
    if not given:
        return
    entries, request = folder.read(), folder.request()
    for name in given:
        if name not in entries:
            raise InputError(
                f"{folder.path} does not know what its {name} held, so nothing can take their"
                " place; put them back where they were"
            )
    if data:
        found = load_data(data, seed=request.seed, input_size=request.input_size)
        found.contents.require(entries["data"], data)
    if weights:
        require_same(weights, entries["weights"])
    folder.update({"moved": {**entries.get("moved", {}), **given}})


def place_of(folder: RunFolder, name: str) -> str | None:
    """Where "data" or "weights" of a run lie."""
    moved: Mapping[str, str] = folder.read().get("moved", {})
    asked: str | None = getattr(folder.request(), name)
    return moved.get(name, asked)


def require_same(weights: str, before: str) -> None:
    """Refuse another weights file than the one of this checksum.

    Raises:
        InputError: it is another one, or cannot be read.
    """
    if digest_of(weights) != before:
        raise InputError(
            f"the weights {weights} are not those that the run began with; put them back, or"
            " begin another run"
        )
