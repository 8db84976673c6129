"""What all networks share in PyTorch: data, the training loop, checkpoints, export."""
