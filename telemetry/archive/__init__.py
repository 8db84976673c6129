"""The files of an archive: written, read, compacted and removed.

Every function that touches the disk raises `ArchiveError` if the catalogue or a file cannot be read or written, or is
damaged. Methods of the lease holder raise `LeaseLostError` if another consumer has the lease, and change nothing then.
"""
