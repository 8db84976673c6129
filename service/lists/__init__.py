"""Lists: what a request asks for, and the steps from scores to the list that is served (pure, without aiohttp)."""
