"""A Flax checkpoint as its author pickled it: a tree of numpy arrays, read so that it can hold nothing else."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np


class ArraysOnly(pickle.Unpickler):
    """Refuses whatever is not an array: a pickle may otherwise call anything by name."""

    # What a pickled array is made of; the names are those of numpy 1, which wrote the files.
    ALLOWED = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    }

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if (module_name, global_name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}, which no array needs")
        return self.ALLOWED[module_name, global_name]


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a checkpoint by their place in the tree, such as `params/Conv_0/kernel`.

    Raises ValueError if the file holds anything but dictionaries of arrays.
    """
    try:
        with path.open("rb") as file:
            return dict(leaves(ArraysOnly(file).load(), ""))
    except (pickle.UnpicklingError, EOFError, AttributeError, IndexError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a checkpoint of arrays: {error}") from error


def leaves(tree: Any, place: str) -> list[tuple[str, np.ndarray]]:
    if isinstance(tree, np.ndarray):
        return [(place, tree)]
    if not isinstance(tree, dict):
        raise TypeError(f"{place or 'the root'} is a {type(tree).__name__}")
    return [leaf for name, branch in tree.items() for leaf in leaves(branch, f"{place}/{name}" if place else str(name))]
