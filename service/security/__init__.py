"""API keys with scopes, and the security log."""
