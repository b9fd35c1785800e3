"""
Stores: documents as embedded chunks in a file or a folder, and the search for them.

    sqlite.py           SqliteStore, MemoryStore: documents, vectors and keywords in one file
    sqlite_schema.py    StoreFile: tables, connections, and documents read and changed in SQL
    sqlite_upsert.py    upsert: documents written in one transaction
    sqlite_search.py    VectorMatrix: all vectors of a file in memory; rankings and conditions
    lance.py            LanceStore: documents, vectors and keywords in a LanceDB folder
    lance_table.py      LanceRows: its table, locked by one writing process at a time
    lance_documents.py  its documents: written, listed, changed and moved
    lance_search.py     its rankings, and conditions as predicates of LanceDB
    query.py            Search, QueryEmbedder: a search in any store, and selected documents
    relocation.py       new ids of documents after a folder or file has moved

Documents are written with their chunks and vectors, several in one transaction. A search embeds the
text, ranks the chunks that match the conditions by cosine and by BM25, and joins both rankings. The
best chunks are read as Hits.
"""
