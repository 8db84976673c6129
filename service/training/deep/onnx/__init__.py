"""Published networks as ONNX files, for other languages: one file for each kind of network."""
