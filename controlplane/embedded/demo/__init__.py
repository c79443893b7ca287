"""What `make demo` shows: a real pretrained model taken down the whole line, through the public API."""
