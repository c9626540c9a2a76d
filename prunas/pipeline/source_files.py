"""Files of what a weights source has learnt, which fit a source of the same kind alone."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from prunas.errors import InputError
from prunas.json_text import parsed
from prunas.pipeline.tensor_file import read_tensors, write_tensors
from prunas.supernet.elastic import Elastic


def save_source(
    source: Elastic, file: Path, *, owner: str = "", losses: Sequence[float] = ()
) -> None:
    """Write all that a weights source has learnt, aside and then renamed.

    Args:
        source: a supernet or a PruningNet.
        file: a .safetensors file.
        owner: the run that it belongs to.
        losses: of each epoch of its training.

    Raises:
        RunError: it cannot be written.
    """
    notes = {**kin(source, owner), "losses": json.dumps(list(losses))}
    write_tensors(file, source.learnt.state_dict(), notes)


def load_source(source: Elastic, file: Path, *, owner: str = "") -> list[float]:
    """Load what `save_source` wrote into a source of the same kind.

    Returns:
        The losses of each epoch of its training; none in files of before they were kept.

    Raises:
        InputError: the file is missing or damaged, of another run, of another network or grid of
            widths, or of another kind of source.
    """
    tensors, notes = read_tensors(file)
    require_kin(source, file, notes, owner)
    held = source.learnt.state_dict()
    wrong = [n for n, t in held.items() if n not in tensors or tensors[n].shape != t.shape]
    if wrong or len(tensors) > len(held):
        name = wrong[0] if wrong else next(n for n in tensors if n not in held)
        raise InputError(
            f"{file} holds another kind of weights source ({name} does not fit); make the source"
            " as it was made when the file was written"
        )
    losses = losses_of(file, notes)
    source.learnt.load_state_dict(tensors)
    return losses


def losses_of(file: Path, notes: Mapping[str, str]) -> list[float]:
    """The losses of the epochs that a file's notes tell of.

    Raises:
        InputError: they are no list of numbers.
    """
    try:
        return [float(loss) for loss in parsed(notes.get("losses", "[]"))]
    except (ValueError, TypeError) as error:
        raise InputError(f"{file} cannot be read ({error}); delete it to redo it") from None


def kin(source: Elastic, owner: str) -> dict[str, str]:
    """Notes by which a file is known to be of this source and run."""
    space = hashlib.sha256(source.space.to_json().encode()).hexdigest()[:16]
    return {"owner": owner, "space": space}


def require_kin(source: Elastic, file: Path, notes: Mapping[str, str], owner: str) -> None:
    """Refuse a file that has other notes than those of `kin`.

    Raises:
        InputError: it is of another run, or of another network or grid of widths.
    """
    if notes.get("owner", "") != owner:
        raise InputError(f"{file} belongs to another run; delete it to make it again")
    if notes.get("space") != kin(source, owner)["space"]:
        raise InputError(
            f"{file} holds the weights of another network or of another grid of widths; give those"
            " that it was made for, or train it again"
        )
