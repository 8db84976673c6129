"""What the handlers of one replica share: its components, the look-up of users, and its degradation."""
