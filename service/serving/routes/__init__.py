"""The handlers: one coroutine for each route, one file for each group of routes."""
