"""The earlier name of `python -m curation.refilter`."""

import runpy

if __name__ == "__main__":
    runpy.run_module("curation.refilter", run_name="__main__", alter_sys=True)
