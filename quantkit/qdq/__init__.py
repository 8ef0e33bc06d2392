"""Q/DQ pairs: where they go, inserting, reading and removing them."""
