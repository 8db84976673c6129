"""The measures that judge predictions, rankings, recommended lists and serving cost."""
