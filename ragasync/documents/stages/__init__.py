"""
The pipeline of one run: its stages, and how a document passes through them.

    config.py          PipelineConfig: the settings of each stage
    runs.py            DocumentRuns: process, stream and start
    intake.py          Intake: the given sources as items
    root_check.py      RootCheck: do ids fit the store, absolute or below a root?
    resuming.py        SourceKeys, IsStillValid: the journal of a document processor
    journalled.py      the serializer of ProcessedDocuments in a journal
    pipeline.py        Pipeline: the open stages of one run
    prepare.py         loads, looks up and splits a source, on threads or in worker processes
    claims.py          ids of documents that a custom loader gives; of two equal ids the later fails
    stored_state.py    what the store has of a document already
    several.py         the documents of one source, with one outcome for all
    chunk_budget.py    ChunkBudget: bounds the chunks in progress
    way.py             Way: a document's way through embedder and store
    stage_values.py    values of users' functions, as chunks, documents and vectors
    storing.py         StoreRequest: one document for the store
    skip_policy.py     SkipPolicy: unreadable sources that are skipped
    failures.py        errors that name stage, source and chunk
    processed.py       ProcessedDocument: the result of one source
    pruning.py         Pruner: removes documents whose files are gone
    counts.py          PipelineCounts: statistics of the stages

`intake` resolves the sources, and each source is an item of a batch run. `pipeline` has it loaded
and split by `prepare`; its chunks wait for their budget, then `way` embeds and stores them.
`processed` is the item's value.
"""
