"""One file for each verb of `recollect`."""
