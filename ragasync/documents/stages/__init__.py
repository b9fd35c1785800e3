"""The inside of the pipeline: its stages, open for a run, and how a document passes them."""
