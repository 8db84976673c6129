"""Renders nginx's configuration and supervises every process of an installation. Standard library only."""
