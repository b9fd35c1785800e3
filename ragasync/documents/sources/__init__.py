"""What there is to load: paths, folders, documents, texts, inside the folder that was named."""
