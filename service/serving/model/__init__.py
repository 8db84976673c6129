"""The served model: its store, and the watcher that follows the active version."""
