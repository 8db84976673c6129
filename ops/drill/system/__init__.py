"""The system under drill: how it is started, addressed and watched."""
