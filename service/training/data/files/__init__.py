"""Opens compressed text files, zip archives, standard input and named pipes."""
