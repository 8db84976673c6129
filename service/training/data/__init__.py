"""From a PATH to interactions: one file a format, and what they share."""
