"""Published models on disk: the directory of each, its files, and the file that names the active one."""
