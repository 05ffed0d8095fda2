"""The earlier name of `python -m curation.review.explain`."""

import runpy

if __name__ == "__main__":
    runpy.run_module("curation.review.explain", run_name="__main__", alter_sys=True)
