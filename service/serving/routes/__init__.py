"""One coroutine for each route, and the application that has them all."""
