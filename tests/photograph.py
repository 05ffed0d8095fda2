"""The photograph that ultralytics brings along: two people, their faces 140 x 180 and 120 x 180 pixels."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np


@cache
def photograph() -> np.ndarray:
    """[720, 1280, 3] uint8 RGB."""
    package = find_spec("ultralytics")
    assert package is not None and package.origin is not None
    picture = cv2.imread(str(Path(package.origin).with_name("assets") / "zidane.jpg"))
    assert picture is not None
    return picture[..., ::-1]
