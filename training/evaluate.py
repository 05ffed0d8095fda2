"""Generated videos beside their references -> the metrics of the paper's Table 1: training/evaluation/evaluate.py.

python training/evaluate.py --generated DIR --reference DIR --output DIR
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if sys.path[0] != str(ROOT):  # run as a script, the first place is this file's own folder
    sys.path[0] = str(ROOT)

from training.evaluation.evaluate import main  # noqa: E402

if __name__ == "__main__":
    raise SystemExit(main())
