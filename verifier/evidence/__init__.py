"""Evidence files: what a search leaves behind, and a checker that replays it with code of its own."""
