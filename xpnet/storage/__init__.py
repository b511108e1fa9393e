"""Files that are never half written, JSON with NaN and infinities, folders with one owner."""
