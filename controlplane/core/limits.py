"""What web and the edge in front of it agree on. Imports nothing: the edge's process knows no settings."""

LARGEST_BODY_BYTES = 2 * 1024**2
"""Of a request that brings no file. The edge refuses a larger one before it reaches web, which refuses it, too."""
