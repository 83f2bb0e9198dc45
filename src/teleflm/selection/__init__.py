"""Less is more: of many conversations the few that are good and differ."""
