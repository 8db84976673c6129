"""The files of an archive: written, read, compacted and dropped."""
