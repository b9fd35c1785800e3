"""
Stores: documents as embedded chunks in a file or a folder, and the search for them.

    sqlite.py           SqliteStore: documents, vectors and keywords in one file
    sqlite_file.py      StoreFile: its tables and its connections
    sqlite_upsert.py    upsert: documents written in one transaction
    sqlite_rows.py      its documents and chunks, read and changed in SQL
    sqlite_search.py    its rankings, in SQL
    vectors.py          VectorMatrix: all vectors of a file in memory
    memory.py           MemoryStore: a SqliteStore without a file
    lance.py            LanceStore: documents, vectors and keywords in a LanceDB folder
    lance_table.py      LanceRows: its table
    lance_rows.py       documents as rows of the table
    lance_upsert.py     documents written, several in one commit
    lance_documents.py  its documents, listed, changed and moved
    lance_filter.py     conditions as predicates of LanceDB
    lance_search.py     its rankings
    file_lock.py        one writing process at a time
    query.py            QueryEmbedder: the vector of a query
    search.py           Search: top_k_cosine, reciprocal_rank_fusion, and the criteria of a hit
    selection.py        documents that match conditions, for lists and deletions
    relocation.py       new ids of documents after a folder or file has moved
    store_dataframe.py  the DataFrame of a store's chunks

Documents are written with their chunks and vectors, several in one transaction. A search embeds the
text, ranks the chunks that match the conditions by cosine and by BM25, and joins both rankings. The
best chunks are read as Hits.
"""
