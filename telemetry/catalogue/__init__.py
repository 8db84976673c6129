"""The SQLite catalogue of an archive: what is committed, and who may commit."""
