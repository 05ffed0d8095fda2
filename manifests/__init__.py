"""The format of `<output>/manifests`: what became of every second of every source, as tables for pandas.

schema    the columns, the reasons, what each means; `python -m manifests.schema` prints them
writer    rows -> clips.parquet, sources.parquet, timings.parquet, after checking that they account for everything
reader    the tables as DataFrames
ledger    not in that folder: `<output>/ledger`, what the run has begun and finished
summary   the funnel: clips, hours and share by reason; `python -m manifests.summary OUT` prints it
limits    what the filters of a run compare, and how far each clip is from another verdict
report    `<output>/report/index.html`: all of it on one page; `python -m curation.review.report OUT`
explain   one video, second by second; `python -m curation.review.explain OUT VIDEO`
pictures  what a row looks and sounds like; page: the templates of report and explain
refilter  other thresholds on stored scores; `python -m curation.refilter OUT --set ... --to OUT2`
"""
