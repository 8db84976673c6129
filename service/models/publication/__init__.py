"""What is done with published models: publish, activate, erase a user."""
