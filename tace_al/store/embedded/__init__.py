"""A small MongoDB-speaking server for one campaign directory: mongomock's semantics on SQLite."""
