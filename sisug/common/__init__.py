"""What every room stands on: whole files, caches, seeds, checksums, provenance and image bytes; no Lightning."""
