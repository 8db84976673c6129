"""The HTTP contract: requests and responses, their bytes, and the documents that describe them."""
