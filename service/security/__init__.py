"""Who may call what: API keys with scopes, and the log of what they were used for."""
