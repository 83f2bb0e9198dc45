"""From raw text to clean, de-duplicated, weighted text."""
