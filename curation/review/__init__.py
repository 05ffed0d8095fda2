"""What people look at of a finished run.

report    `<output>/report/index.html`, all of it on one page: `python -m curation.review.report OUT`
replay    what the page needs to judge clips anew when a threshold is moved
compare   two runs over the same videos: what was gained and lost
explain   one video, second by second: `python -m curation.review.explain OUT VIDEO`
pictures  what a row looks and sounds like
page/     the templates of both
"""
