"""
Reports on a result: as DataFrames, as text, as HTML.

Files, in data-flow order:
    error_groups.py    the groups of a result's errors, also those of a running job
    timeline.py        when items ended, and when calls worked, waited and backed off
    time_breakdown.py  where the workers' time went; statistics of calls and stages
    percentiles.py     p50, p95 and p99 of calls, waits and back-off
    dataframes.py      to_dataframe, errors_dataframe, error_summary
    attached.py        values as a Series; outcomes attached to the DataFrame that was processed
    summary.py         the title, facts, errors and time in words; how numbers are written
    html.py            the HTML of a result, its colors and its charts
    limit_advice.py    which rate limit binds, and how to raise that one alone
    advice.py          the explanation of a run: the setting that would make it faster

Everything is computed from a result's columns (one entry per item) and the stats of its run. The
errors of failed items are grouped once, for all views; times are read into arrays when something
is to be drawn. Text and HTML are made from the same parts, so that they state the same facts.
"""
