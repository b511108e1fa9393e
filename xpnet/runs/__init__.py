"""Training from settings into a folder, and what such a folder says: what `xpnet train` and its kin are made of."""
