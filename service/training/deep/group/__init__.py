"""Training groups: processes that train one network together, and what they exchange."""
