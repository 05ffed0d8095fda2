"""Steps turn one clip into some clips, or attach something to it. One file each; the name in a profile is the path."""
