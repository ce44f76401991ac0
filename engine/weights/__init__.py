"""Stored weights: read, map, load, stream, export, push to servers."""
