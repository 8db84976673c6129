"""What a model knows of items beside interactions."""
