"""The erasure of users from an archive. Errors are those of `telemetry.archive` and `telemetry.catalogue`."""
