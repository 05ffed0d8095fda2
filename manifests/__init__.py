"""The format of `<output>/manifests`: what became of every second of every source, as tables for pandas.

schema    the columns, the reasons, what each means; `python -m manifests.schema` prints them
writer    rows -> clips.parquet, sources.parquet, timings.parquet, after checking that they account for everything
reader    the tables as DataFrames
summary   the funnel: clips, hours and share by reason; `python -m manifests.summary OUT` prints it
labels    what a data set's list says of each segment
balance   a balanced part to train on, without a copy: `python -m manifests.balance OUT --by ... --to OUT2`
export    folders that other systems read: `python -m manifests.export OUT --for NAME --to FOLDER`

`report`, `explain` and `refilter` are earlier names of commands that are in `curation/` now.
"""
