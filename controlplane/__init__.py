"""The project: what is shared between the apps, and where they are put together."""
