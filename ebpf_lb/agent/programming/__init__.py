"""From the plan into the maps, and what of it could not be written."""
