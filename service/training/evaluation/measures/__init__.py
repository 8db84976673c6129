"""The measures: how wrong predictions are, and how good ranked lists are."""
