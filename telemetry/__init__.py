"""Events: how they are accepted, shipped, archived and counted; independent of recommendations."""
