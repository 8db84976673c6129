"""The consumer job: from the streams into the archive."""
