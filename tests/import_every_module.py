"""Imports every module of the installed prunas and checks that it lies in the folder given.

CI runs this against the built wheel, away from the repository.
"""

import importlib
import pkgutil
import sys
from pathlib import Path


def import_every_module(folder: Path) -> list[str]:
    """The names of all modules of prunas, imported; ImportError if one lies outside of `folder`."""
    package = importlib.import_module("prunas")
    names = [package.__name__]
    names += [found.name for found in pkgutil.walk_packages(package.__path__, "prunas.")]
    for name in names:
        file = importlib.import_module(name).__file__
        if file is None or not Path(file).resolve().is_relative_to(folder.resolve()):
            raise ImportError(f"{name} was imported from {file}, not from {folder}.")
    return names


if __name__ == "__main__":
    imported = import_every_module(Path(sys.argv[1]))
    sys.stdout.write(f"{len(imported)} modules of the installed prunas import\n")
