"""Archives of runs at any fsspec URL (docs/formats/archive.md)."""
