"""Streamlit: the job stays in the session, and a fragment shows it twice a second."""

import streamlit as st

from ragasync import AsyncBatchProcessor
from ragasync.simulation import ScriptedService

if st.button("Start"):
    service = ScriptedService(latency=0.05)  # your function
    st.session_state.job = AsyncBatchProcessor(service).start(["a text"] * 200)


@st.fragment(run_every=0.5)
def look(job):
    st.progress(job.progress.done / 200, text=str(job))
    job.max_concurrency = st.slider("concurrency", 1, 64, 8)
    st.button("Cancel", on_click=job.cancel)
    st.dataframe(job.result.to_dataframe()[["item", "status", "value"]])


if "job" in st.session_state:
    look(st.session_state.job)
