"""The earlier name of `python -m curation.verify`."""

import runpy

if __name__ == "__main__":
    runpy.run_module("curation.verify", run_name="__main__", alter_sys=True)
