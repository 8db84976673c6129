"""The SQLite catalogue of an archive: what is committed, and which process may commit.

Every function raises `ArchiveError` if the catalogue cannot be read or written. Those that take a lease epoch raise
`LeaseLostError` if another consumer holds the lease; nothing was changed then.
"""
