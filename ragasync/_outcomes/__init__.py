"""
The outcomes of a run: of each item, of all items in columns, and of the run as a whole.

    outcome.py     Outcome and Attempt of an item, CallSuccess of a whole call
    columns.py     Columns: all outcomes of a job, one array per field
    merge.py       merges the columns of two runs, and selects the rows to rerun
    misplaced.py   finds items that two runs have at different positions
    activity.py    ActivityMonitor: how many calls were in flight over time
    stats.py       RunStats: settings, limits, pauses and stages of a run

The engine's Recorder writes each finished item into a row of Columns, by index. A BatchResult reads
the rows back as Outcomes, together with the run's RunStats. When failed items run again, `merge`
combines both runs by original index.
"""
