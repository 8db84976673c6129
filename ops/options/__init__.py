"""Options and settings that several verbs share."""
