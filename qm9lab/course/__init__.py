"""What all lessons share: checks, picture style, views, copies of the lessons, folders."""
