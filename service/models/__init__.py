"""What a trained model means; shared by server, trainer and consumer."""
