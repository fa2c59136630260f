"""Conditions: what a user gives to steer the layout, from masks to sketches."""
