"""MoveNet Lightning: poses of people in photographs, by trained weights that an npm package ships, run by torch."""
