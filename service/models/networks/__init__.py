"""Networks as they are served: numpy alone, from small files of weights beside the tables of a model."""
