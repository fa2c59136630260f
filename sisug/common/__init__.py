"""Ground floor (every stage): files, caches and what else every room needs."""
