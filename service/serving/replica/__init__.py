"""The components of one replica, its users, and its degradation."""
