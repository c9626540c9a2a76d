"""What a data set holds, in so few words that a run can keep them and know it again."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, final

from prunas.errors import InputError


@final
@dataclass(frozen=True)
class Contents:
    """What is compared.

    Attributes:
        pictures: of all parts together.
        digest: differs when anything differs that decides which picture is in which split.
    """

    pictures: int
    digest: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def require(self, before: Mapping[str, Any], name: str) -> None:
        """Refuse other data than those of before, whose pictures would be split anew.

        Args:
            before: `to_json` of what a run was made with.
            name: of the data set.

        Raises:
            InputError: it holds something else now.
        """
        if before == self.to_json():
            return
        what = f"{self.pictures} pictures, were {before['pictures']}"
        if self.pictures == before["pictures"]:
            what = "as many pictures, but other ones or other labels"
        raise InputError(
            f"{name} is not what this run was made with: {what}; put back what was there, or begin"
            " a new run"
        )


def contents_of(pictures: int, facts: Iterable[bytes]) -> Contents:
    """The contents of so many pictures, of which these facts decide the splits."""
    digest = hashlib.sha256()
    for fact in facts:
        digest.update(len(fact).to_bytes(8, "little") + fact)
    return Contents(pictures, digest.hexdigest()[:16])
