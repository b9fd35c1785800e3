"""
Sources: what there is to load, inside the given folder.

    finding.py          find_sources, Source: folders, paths, texts and documents as a stream
    folder_boundary.py  FolderBoundary: symbolic links, pipes and devices in a folder
    file_ids.py         FileIds: absolute ids, or ids below a root; ids of rows
    own_files.py        OwnFiles: the store and the journal, which are not sources
    unique.py           each source once per run, and no two sources with one id

`finding` walks a folder within its boundary and gives each file an id. `own_files` and `unique`
drop the pipeline's own files and repeated sources. A second source with the same id fails.
"""
