"""Changes of the published models: a version is published or activated, or a user is erased from all of them."""
