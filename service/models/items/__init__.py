"""What is known of items beside interactions: titles and attributes."""
