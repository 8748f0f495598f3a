"""Tools: what an Agent's model may call, and what a Tool node calls."""
