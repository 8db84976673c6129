"""Opens what data comes in: compressed files, archives, pipes."""
