"""The format of `<output>/manifests`: what became of every second of every source, as tables for pandas.

schema    the columns, the reasons, what each means; `python -m manifests.schema` prints them
writer    rows -> clips.parquet, sources.parquet, timings.parquet, after checking that they account for everything
reader    the tables as DataFrames
summary   the funnel: clips, hours and share by reason; `python -m manifests.summary OUT` prints it

`report`, `explain` and `refilter` are earlier names of commands that are in `curation/` now.
"""
