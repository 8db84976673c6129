"""The files of generated lists, their folder with its manifest, and whether all of it is whole."""
