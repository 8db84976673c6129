"""The stop-watch of live lists: how long a replica still answers without an event that was posted."""
