"""How agents reason: engines, styles, skills, and the tree of what a turn rested on."""
