"""Texts to vectors: by hashing, by a small model, by a service over HTTP."""
