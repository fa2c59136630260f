"""Data: latents, image and mask folders, and the drawn avatars; each is imported from its own module."""
